//! Memory that a child has filled: its scans and openings, each within the child's limits.

use async_trait::async_trait;

use super::{ChildProver, Filled, ProverError, Session};
use crate::proof::frames::{self, Frame};
use crate::proof::memory::keys::ScanNonce;
use crate::proof::memory::{Challenge, Position, Size};
use crate::proof::work::Root;

pub(super) struct ChildMemory {
    size: Size,
    scanned: bool,
    /// Out of its place while a request is under way: if that is dropped half-way, the child goes with it.
    session: Option<Session>,
}

impl ChildMemory {
    pub(super) async fn fill(prover: &ChildProver, challenge: &Challenge) -> Result<Self, ProverError> {
        let (size, most) = (challenge.size, prover.limits.output_bytes);
        let roots = 32 * u64::from(size.scans());
        if roots > most {
            let text = format!("{} roots are {roots} bytes; at most {most} bytes are allowed", size.scans());
            return Err(ProverError::Refused(text));
        }
        let threads = u32::try_from(prover.limits.threads).unwrap_or(u32::MAX).max(1);
        let request = Frame::Fill { challenge: challenge.clone(), threads };
        let (session, answer) = prover.spawn()?.ask(&request, true).await?;
        match answer {
            Frame::Filled => Ok(ChildMemory { size, scanned: false, session: Some(session) }),
            other => Err(session.unexpected(other).await),
        }
    }

    /// Why these positions are not asked for, if they are not.
    fn refuses(&self, most: u64, positions: &[Position]) -> Option<String> {
        if !self.scanned {
            return Some("nothing is scanned yet".to_owned());
        }
        let (count, bytes) = (positions.len(), self.expected(positions) as u64);
        if count > frames::MAX_POSITIONS || bytes > most {
            let allowed = frames::MAX_POSITIONS;
            return Some(format!(
                "{count} openings are {bytes} bytes; at most {allowed} openings and {most} bytes are allowed"
            ));
        }
        positions.iter().find(|p| !p.is_within(&self.size)).map(|outside| format!("{outside:?} is not in the memory"))
    }

    /// Bytes of the openings of these positions.
    fn expected(&self, positions: &[Position]) -> usize {
        positions.len().saturating_mul(self.size.opening_len())
    }
}

#[async_trait]
impl Filled for ChildMemory {
    async fn scan(&mut self, nonce_0: &ScanNonce) -> Result<Vec<Root>, ProverError> {
        let session = self.session.take().ok_or_else(ProverError::gone)?;
        let (session, answer) = session.ask(&Frame::Scan { nonce_0: *nonce_0 }, false).await?;
        let asked = self.size.scans() as usize;
        match answer {
            Frame::ScanRoots { roots } if roots.len() == asked => {
                (self.scanned, self.session) = (true, Some(session));
                Ok(roots)
            }
            Frame::ScanRoots { roots } => {
                let what = format!("{} roots for {asked} scans", roots.len());
                Err(session.end(ProverError::Garbage { what }).await)
            }
            other => Err(session.unexpected(other).await),
        }
    }

    async fn open(&mut self, positions: &[Position]) -> Result<Vec<u8>, ProverError> {
        let most = self.session.as_ref().ok_or_else(ProverError::gone)?.limits.output_bytes;
        if let Some(why) = self.refuses(most, positions) {
            return Err(ProverError::Refused(why));
        }
        let expected = self.expected(positions);
        let session = self.session.take().ok_or_else(ProverError::gone)?;
        let request = Frame::OpenBlocks { positions: positions.to_vec() };
        let (session, answer) = session.ask(&request, false).await?;
        match answer {
            Frame::BlockOpenings { bytes } if bytes.len() == expected => {
                self.session = Some(session);
                Ok(bytes)
            }
            Frame::BlockOpenings { bytes } => {
                let what = format!("{} bytes of openings, expected {expected}", bytes.len());
                Err(session.end(ProverError::Garbage { what }).await)
            }
            other => Err(session.unexpected(other).await),
        }
    }
}
