//! Processes that the laboratory starts: their CPU time and memory, and their end.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// How long a process gets to end by itself.
const PATIENCE: Duration = Duration::from_secs(3);

/// A process, and those that it started. It ends with this.
pub(crate) struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts a program on these cores, with what it says in `log/NAME.log` of the folder: apart from what it
    /// watches there. It ends when the laboratory does, however that ends.
    pub(crate) fn start(name: &str, folder: &Path, cores: &str, program: &[String]) -> anyhow::Result<Self> {
        fs::create_dir_all(folder.join("log"))?;
        let log = fs::File::create(folder.join(format!("log/{name}.log")))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "taskset", "-c", cores])
            .args(program)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Process { child, name: name.to_owned() })
    }

    /// Fails if it has ended.
    pub(crate) fn is_running(&mut self) -> anyhow::Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(
            ended.is_none(),
            "{} has ended ({})",
            self.name,
            ended.map(|s| s.to_string()).unwrap_or_default()
        );
        Ok(())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id())?).context("no process")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// How many processes it is, with its children.
    pub(crate) fn many(&self) -> anyhow::Result<usize> {
        Ok(self.family()?.len())
    }

    /// Microseconds of CPU that it and its children have used, user and system.
    pub(crate) fn cpu_micros(&self) -> anyhow::Result<f64> {
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        let mut ticks = 0.0;
        for pid in self.family()? {
            // One that has just ended is in those of its parent.
            let Some(fields) = stat(pid) else { continue };
            let number =
                |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
            // utime, stime, and those of its children that have ended: fields 14 to 17 of proc(5), which begin here with the third.
            ticks += (11..=14).map(number).sum::<f64>();
        }
        Ok(ticks * 1e6 / per_second)
    }

    /// KiB of memory that it and its children have; what they share counts once (Pss).
    pub(crate) fn memory_kib(&self) -> anyhow::Result<f64> {
        self.memory("Pss:")
    }

    /// KiB of memory that it and its children have, each for itself (Rss): what they share counts for each.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<f64> {
        self.memory("Rss:")
    }

    fn memory(&self, field: &str) -> anyhow::Result<f64> {
        let mut all = 0.0;
        for pid in self.family()? {
            // A child that has just ended has none.
            let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
            let Some(value) = text.lines().find_map(|line| line.strip_prefix(field)) else { continue };
            all += value.trim().trim_end_matches(" kB").parse::<f64>()?;
        }
        ensure!(all > 0.0, "{} is gone", self.name);
        Ok(all)
    }

    /// Itself and all that descend from it.
    fn family(&self) -> anyhow::Result<Vec<u32>> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse::<u32>().ok()) {
                parents.push((pid, parent));
            }
        }
        let mut family = vec![self.child.id()];
        let mut i = 0;
        while let Some(parent) = family.get(i).copied() {
            family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            i += 1;
        }
        Ok(family)
    }
}

/// The fields of `/proc/PID/stat` after the name, which may hold anything; none if the process is gone.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

impl Drop for Process {
    fn drop(&mut self) {
        let begin = Instant::now();
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        while begin.elapsed() < PATIENCE {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
