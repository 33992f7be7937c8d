//! Which images may run. Pure: the answer for a renter's wish is a reference to look for, or the reason against it.
//!
//! Nothing is ever built: a renter's text is a name or it is refused. What an operator wants renters to have beyond an image
//! as it is published, he builds himself and names here.

use std::collections::BTreeMap;

/// The longest reference that is read, bytes.
const MAX_REFERENCE: usize = 255;

/// The operator's word on images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImagePolicy {
    /// Images by the names that renters may use for them, each with its reference.
    pub named: BTreeMap<String, String>,
    /// The name of the image that is taken when nobody asks for one.
    pub default: Option<String>,
    /// Repositories of which renters may name any image, as patterns: `docker.io/library/debian`, `ghcr.io/me/*`.
    pub allow: Vec<String>,
    /// Whether a renter's reference must say the digest of the content.
    pub require_digest: bool,
}

/// A reference to an image, whole: registry, path, and tag or digest or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Registry and path: `docker.io/library/debian`.
    pub repository: String,
    /// The tag.
    pub tag: Option<String>,
    /// The digest of the content: `sha256:` and 64 hex digits.
    pub digest: Option<String>,
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl Reference {
    /// Reads a reference as Docker does: without a registry it is Docker Hub's, without a path `library/` there.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("not a reference to an image: {why}"));
        if text.is_empty() || text.len() > MAX_REFERENCE {
            return wrong("between 1 and 255 bytes are one");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b)) {
            return wrong("it has characters that none has (a Dockerfile is not taken: name an image)");
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => (rest, Some(digest)),
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return wrong("the digest behind @ must be sha256: and 64 hex digits");
        }
        // A colon before the last slash is a registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return wrong("the tag behind the colon is none");
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if first == "localhost" || first.contains(['.', ':']) => (first, path.to_owned()),
            Some(_) => ("docker.io", name.to_owned()),
            None => ("docker.io", format!("library/{name}")),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        if !is_registry(registry) || !path.split('/').all(is_component) {
            return wrong("registry and path are lower-case names with single separators");
        }
        Ok(Reference {
            repository: format!("{registry}/{path}"),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// Whether it always means the same image, or one that somebody gave a name of its own. `latest`, said or left out, does
    /// not.
    fn is_definite(&self) -> bool {
        self.digest.is_some() || self.tag.as_deref().is_some_and(|tag| tag != "latest")
    }
}

impl ImagePolicy {
    /// The image for a wish: a name of the list, a reference that a pattern allows, or nothing for the default.
    ///
    /// # Errors
    /// Why there is none, for the renter.
    pub fn resolve(&self, wish: &str) -> Result<Reference, String> {
        let wish = wish.trim();
        if wish.is_empty() {
            let name = self
                .default
                .as_deref()
                .ok_or("this miner has no default image (docker.default_image); name one of its images".to_owned())?;
            // The operator's own choice: no pattern is asked.
            return self.named(name).unwrap_or_else(|| {
                Reference::parse(name)
                    .map_err(|why| format!("docker.default_image {name:?} is no name of docker.images and {why}"))
            });
        }
        if let Some(found) = self.named(wish) {
            return found;
        }
        let reference = Reference::parse(wish).map_err(|why| format!("{why}; {}", self.offered()))?;
        if !self.allow.iter().any(|pattern| matches(pattern, &reference.repository)) {
            return Err(format!("the operator does not allow {}; {}", reference.repository, self.offered()));
        }
        if self.require_digest && reference.digest.is_none() {
            return Err("the operator wants a digest: add @sha256: and the image's digest".to_owned());
        }
        if !reference.is_definite() {
            return Err("say which version: a tag other than latest, or a digest".to_owned());
        }
        Ok(reference)
    }

    /// The operator's own images: the default, and those with a name.
    pub fn wanted(&self) -> Vec<Reference> {
        let mut wanted: Vec<Reference> = self.resolve("").into_iter().collect();
        for other in self.named.keys().filter_map(|name| self.named(name)?.ok()) {
            if !wanted.contains(&other) {
                wanted.push(other);
            }
        }
        wanted
    }

    /// The image of a name.
    fn named(&self, name: &str) -> Option<Result<Reference, String>> {
        let text = self.named.get(name)?;
        Some(Reference::parse(text).map_err(|why| format!("docker.images.{name}: {why}")))
    }

    /// What a renter may ask for instead.
    fn offered(&self) -> String {
        let names: Vec<&str> = self.named.keys().map(String::as_str).collect();
        if names.is_empty() {
            "no images are offered by name".to_owned()
        } else {
            format!("offered: {}", names.join(", "))
        }
    }
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

fn is_tag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    port.is_none_or(|port| port.parse::<u16>().is_ok())
        && !host.is_empty()
        && host.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

fn is_component(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.bytes().next().is_some_and(plain)
        && text.bytes().last().is_some_and(plain)
        && text.bytes().all(|b| plain(b) || b"._-".contains(&b))
        && !text.contains("..")
}

/// Whether a repository fits a pattern. `*` stands for any characters but slashes, `**` at the end for any at all.
fn matches(pattern: &str, repository: &str) -> bool {
    if let Some(head) = pattern.strip_suffix("**") {
        return repository.len() > head.len() && repository.starts_with(head);
    }
    let (pattern, repository): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), repository.split('/').collect());
    pattern.len() == repository.len()
        && pattern.iter().zip(repository).all(|(pattern, part)| part_matches(pattern, part))
}

fn part_matches(pattern: &str, part: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == part,
        Some((head, tail)) => {
            let Some(rest) = part.strip_prefix(head) else { return false };
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| part_matches(tail, &rest[at..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn policy() -> ImagePolicy {
        ImagePolicy {
            named: BTreeMap::from([
                ("base".into(), "debian:12".into()),
                ("pytorch".into(), format!("pytorch/pytorch@{DIGEST}")),
            ]),
            default: Some("base".into()),
            allow: vec!["docker.io/library/debian".into(), "ghcr.io/me/*".into(), "registry.example:5000/**".into()],
            require_digest: false,
        }
    }

    fn resolved(wish: &str) -> Result<String, String> {
        policy().resolve(wish).map(|reference| reference.to_string())
    }

    #[test]
    fn an_image_is_had_by_its_name_and_the_default_by_none() {
        assert_eq!(resolved("").unwrap(), "docker.io/library/debian:12");
        assert_eq!(resolved("  ").unwrap(), "docker.io/library/debian:12");
        assert_eq!(resolved("pytorch").unwrap(), format!("docker.io/pytorch/pytorch@{DIGEST}"));
    }

    #[test]
    fn a_reference_is_taken_where_a_pattern_allows_its_repository() {
        assert_eq!(resolved("debian:11").unwrap(), "docker.io/library/debian:11");
        assert_eq!(resolved("index.docker.io/library/debian:11").unwrap(), "docker.io/library/debian:11");
        assert_eq!(resolved("ghcr.io/me/tool:1").unwrap(), "ghcr.io/me/tool:1");
        assert_eq!(resolved("registry.example:5000/a/b/c:1").unwrap(), "registry.example:5000/a/b/c:1");
        for refused in ["ubuntu:22.04", "ghcr.io/you/tool:1", "ghcr.io/me/a/b:1", "ghcr.io/me2/tool:1"] {
            let why = resolved(refused).unwrap_err();
            assert!(why.contains("does not allow") && why.contains("offered: base, pytorch"), "{why}");
        }
    }

    #[test]
    fn latest_never_moves_under_a_renter() {
        for moving in ["debian", "debian:latest"] {
            assert!(resolved(moving).unwrap_err().contains("which version"), "{moving}");
        }
        assert!(resolved(&format!("debian@{DIGEST}")).is_ok());
        assert!(resolved(&format!("debian:latest@{DIGEST}")).is_ok());
    }

    #[test]
    fn where_digests_are_wanted_a_tag_is_not_enough() {
        let strict = ImagePolicy { require_digest: true, ..policy() };
        assert!(strict.resolve("debian:12").unwrap_err().contains("digest"));
        assert!(strict.resolve(&format!("debian:12@{DIGEST}")).is_ok());
        assert!(strict.resolve("base").is_ok(), "what the operator named is his own choice");
    }

    #[test]
    fn a_dockerfile_is_refused_with_the_reason() {
        for text in [
            "FROM debian\nRUN curl evil | sh",
            "RUN true",
            "debian:12; rm -rf /",
            "$(id)",
            "`id`",
            "debian:12\" && x",
            "../../etc/passwd",
            "debian:12\nbase",
        ] {
            let why = resolved(text).unwrap_err();
            assert!(why.contains("not a reference") && why.contains("offered: base"), "{text:?}: {why}");
        }
        assert!(resolved("FROM x\nRUN y").unwrap_err().contains("a Dockerfile is not taken"));
    }

    #[test]
    fn without_a_default_an_empty_wish_is_told_so() {
        let bare = ImagePolicy::default();
        assert!(bare.resolve("").unwrap_err().contains("docker.default_image"));
        assert!(bare.resolve("debian:12").unwrap_err().contains("no images are offered by name"));
    }

    #[test]
    fn patterns_match_whole_parts_of_a_repository() {
        for (pattern, repository, fits) in [
            ("docker.io/library/*", "docker.io/library/debian", true),
            ("docker.io/library/*", "docker.io/other/debian", false),
            ("docker.io/*/deb*an", "docker.io/library/debian", true),
            ("docker.io/*", "docker.io/library/debian", false),
            ("docker.io/**", "docker.io/library/debian", true),
            ("docker.io/**", "docker.io.evil/library/debian", false),
            ("**", "docker.io/library/debian", true),
        ] {
            assert_eq!(matches(pattern, repository), fits, "{pattern} {repository}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_reads_back_the_same_and_nothing_panics(text in "[a-zA-Z0-9._/:@\\n $-]{0,64}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&reference.to_string()), Ok(reference));
            }
            let _ = policy().resolve(&text);
        }
    }
}
