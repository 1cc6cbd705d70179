//! Threads of another process that stand still, as in a deadlock, while the others go on.

use nix::{
    errno::Errno,
    sys::{
        ptrace,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use std::{
    fs, io,
    path::Path,
    sync::mpsc::{Sender, channel},
    thread::{JoinHandle, spawn},
};

/// These threads stand still until this is dropped, or their process is killed.
#[derive(Debug)]
pub struct FrozenThreads {
    end: Option<Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

impl FrozenThreads {
    /// Stops the threads of the process whose names are wanted. An error if the kernel does not allow it, or there is no
    /// such thread.
    pub fn of_process(pid: u32, is_wanted: fn(&str) -> bool) -> io::Result<Self> {
        let (end, ended) = channel::<()>();
        let (tell, told) = channel();
        // Only the thread that stops them can let them go, and they go on when it ends.
        let tracer = spawn(move || {
            let _ = tell.send(stop(pid, is_wanted));
            let _ = ended.recv();
        });
        let frozen = Self { end: Some(end), tracer: Some(tracer) };
        told.recv().map_err(io::Error::other)??;
        Ok(frozen)
    }
}

fn stop(pid: u32, is_wanted: fn(&str) -> bool) -> io::Result<()> {
    let mut stopped = 0;
    for entry in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))? {
        let task = entry?;
        let thread =
            task.file_name().to_string_lossy().parse().map(Pid::from_raw).map_err(io::Error::other)?;
        let Ok(name) = fs::read_to_string(task.path().join("comm")) else { continue };
        if !is_wanted(name.trim()) {
            continue;
        }
        match ptrace::seize(thread, ptrace::Options::empty()) {
            // It has ended meanwhile.
            Err(Errno::ESRCH) => continue,
            result => result?,
        }
        ptrace::interrupt(thread)?;
        waitpid(thread, Some(WaitPidFlag::__WALL))?;
        stopped += 1;
    }
    if stopped == 0 { Err(io::Error::other(format!("process {pid} has no such thread"))) } else { Ok(()) }
}

impl Drop for FrozenThreads {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}
