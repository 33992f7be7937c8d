//! A device that is none: the kernels' own source, compiled by the C compiler and run by `emulator/emulator.c`.
//!
//! What is begun on a lane is done when somebody waits for that lane, as late as a GPU may do it.

use std::cell::RefCell;
use std::io::{BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;

use super::CudaError;
use super::device::{Device, LANES};
use super::kernels::{Argument, Launch};

/// All that the emulator is made of.
const SOURCES: [&str; 5] = [
    include_str!("emulator/emulator.c"),
    include_str!("emulator/shim.h"),
    include_str!("fill.cu"),
    include_str!("hash.cu"),
    include_str!("gemm.cu"),
];

/// Which path the product takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arch {
    Turing = 750,
    Ampere = 800,
}

/// The emulator for this path, compiled where it is not there yet: beside this test program.
fn program(arch: Arch) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    SOURCES.iter().for_each(|source| _ = hasher.update(source.as_bytes()));
    let digest = hasher.finalize().to_hex();
    let dir = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let program = dir.join(format!("emulator-{}-{}", arch as u32, &digest[..16]));
    if !program.is_file() {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/proof/prover/cuda/emulator/emulator.c");
        let fresh = tempfile::NamedTempFile::new_in(&dir).unwrap().into_temp_path();
        let done = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
            .args(["-std=gnu11", "-O2", "-fno-strict-aliasing", "-Wall", "-Wno-unknown-pragmas", "-Werror"])
            .arg(format!("-D__CUDA_ARCH__={}", arch as u32))
            .arg(source)
            .arg("-o")
            .arg(&fresh)
            .output()
            .expect("a C compiler, as the build needs one");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        fresh.persist(&program).unwrap();
    }
    program
}

struct Process {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Allocations that were not given back, and their bytes.
    allocated: usize,
    bytes: u64,
}

impl Process {
    fn ask(&mut self, request: &[u8]) {
        self.requests.write_all(request).expect("the emulator takes requests");
    }

    fn answer(&mut self, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        self.answers.read_exact(&mut out).expect("the emulator answers; its last words are above");
        out
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was begun.
enum Begun {
    Launch(Vec<u8>),
    Fetch { request: Vec<u8>, bytes: usize },
}

/// The device.
pub(super) struct Emulated {
    process: Rc<RefCell<Process>>,
    begun: [Vec<Begun>; LANES],
    /// What it says is free.
    pub(super) free: u64,
    /// The largest allocation that it makes.
    pub(super) largest: u64,
    /// Of what it says is free, what it does not give.
    pub(super) withheld: u64,
    /// Requests that succeed before the device is lost.
    pub(super) lost_after: usize,
}

/// Its memory.
pub(super) struct Memory {
    handle: u32,
    bytes: u64,
    process: Rc<RefCell<Process>>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut process = self.process.borrow_mut();
        process.allocated -= 1;
        process.bytes -= self.bytes;
        let _ = process.requests.write_all(&words(&[1, self.handle]));
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl Memory {
    /// A place in it, as a request names it.
    fn place(&self, offset: u64, bytes: u64) -> Vec<u8> {
        [&self.handle.to_le_bytes()[..], &offset.to_le_bytes(), &bytes.to_le_bytes()].concat()
    }

    pub(super) fn write(&self, offset: u64, content: &[u8]) {
        let place = self.place(offset, content.len() as u64);
        self.process.borrow_mut().ask(&[&words(&[3])[..], &place, content].concat());
    }

    pub(super) fn read(&self) -> Vec<u8> {
        let mut process = self.process.borrow_mut();
        process.ask(&[words(&[2]), self.place(0, self.bytes)].concat());
        process.answer(self.bytes as usize)
    }
}

impl Emulated {
    pub(super) fn new(arch: Arch) -> Self {
        let mut child = Command::new(program(arch))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the emulator starts");
        let (requests, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let process = Rc::new(RefCell::new(Process { child, requests, answers, allocated: 0, bytes: 0 }));
        Emulated {
            process,
            begun: Default::default(),
            free: 16 << 30,
            largest: u64::MAX,
            withheld: 0,
            lost_after: usize::MAX,
        }
    }

    /// Memory with this content.
    pub(super) fn with(&mut self, content: &[u8]) -> Memory {
        let memory = self.allocate(content.len() as u64).unwrap();
        memory.write(0, content);
        memory
    }

    /// Allocations that were not given back.
    pub(super) fn allocated(&self) -> usize {
        self.process.borrow().allocated
    }

    /// The same, to be asked when the device itself is out of sight.
    pub(super) fn watch(&self) -> impl Fn() -> usize + use<> {
        let process = self.process.clone();
        move || process.borrow().allocated
    }

    fn request(&mut self, what: &'static str) -> Result<(), CudaError> {
        let lost = || CudaError::Vanished { what, code: "LOST".to_owned() };
        self.lost_after = self.lost_after.checked_sub(1).ok_or_else(lost)?;
        Ok(())
    }
}

impl Device for Emulated {
    type Memory = Memory;

    fn free_memory(&mut self) -> Result<u64, CudaError> {
        self.request("asking for free memory")?;
        Ok(self.free)
    }

    fn allocate(&mut self, bytes: u64) -> Result<Memory, CudaError> {
        self.request("allocating")?;
        let mut process = self.process.borrow_mut();
        let free = self.free.saturating_sub(self.withheld).saturating_sub(process.bytes);
        if bytes > free.min(self.largest) {
            return Err(CudaError::OutOfMemory { needed: bytes, free });
        }
        process.ask(&[&words(&[0])[..], &bytes.to_le_bytes()].concat());
        let handle = u32::from_le_bytes(process.answer(4).try_into().unwrap());
        process.allocated += 1;
        process.bytes += bytes;
        Ok(Memory { handle, bytes, process: self.process.clone() })
    }

    fn launch(&mut self, lane: usize, launch: &Launch<'_, Memory>) -> Result<(), CudaError> {
        self.request("launching")?;
        let arguments = launch.arguments.len() as u32;
        let mut request = words(&[4, launch.kernel as u32, launch.grid.0, launch.grid.1, launch.threads, arguments]);
        for argument in &launch.arguments {
            request.extend(match argument {
                Argument::Key(key) => [&words(&[0])[..], key].concat(),
                Argument::Number(number) => words(&[1, *number]),
                Argument::Memory { memory, offset } => [words(&[2]), memory.place(*offset, 0)].concat(),
            });
        }
        self.begun[lane].push(Begun::Launch(request));
        Ok(())
    }

    fn fetch(&mut self, lane: usize, from: &Memory, offset: u64, bytes: usize) -> Result<(), CudaError> {
        self.request("copying")?;
        let request = [words(&[2]), from.place(offset, bytes as u64)].concat();
        self.begun[lane].push(Begun::Fetch { request, bytes });
        Ok(())
    }

    fn wait(&mut self, lane: usize, read: &mut dyn FnMut(&[u8])) -> Result<(), CudaError> {
        self.request("waiting")?;
        let mut process = self.process.borrow_mut();
        let mut fetched = None;
        for begun in self.begun[lane].drain(..) {
            match begun {
                Begun::Launch(request) => {
                    process.ask(&request);
                    assert_eq!(process.answer(4), words(&[1]));
                }
                Begun::Fetch { request, bytes } => {
                    process.ask(&request);
                    fetched = Some(process.answer(bytes));
                }
            }
        }
        drop(process);
        if let Some(fetched) = fetched {
            read(&fetched);
        }
        Ok(())
    }
}
