//! What a build says while it runs, on standard error: a line per running step on a terminal, plain lines elsewhere.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::domain::value::human_size;

/// Often enough for eyes.
const TICK: Duration = Duration::from_millis(100);
/// Plain lines about a transfer come this often.
const REPORT: Duration = Duration::from_secs(5);

/// The progress of all stages.
pub struct Progress {
    quiet: bool,
    terminal: Option<MultiProgress>,
    bars: Mutex<BTreeMap<String, ProgressBar>>,
}

/// Bytes on their way.
pub struct Transfer<'a> {
    progress: &'a Progress,
    stage: String,
    words: &'static str,
    total: u64,
    done: AtomicU64,
    reported: Mutex<Instant>,
}

impl Progress {
    /// Lines as standard error can show them; warnings alone when `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        let terminal = (!quiet && io::stderr().is_terminal()).then(MultiProgress::new);
        Self { quiet, terminal, bars: Mutex::default() }
    }

    /// What a stage does now.
    pub fn state(&self, stage: &str, words: &str) {
        match &self.terminal {
            Some(terminal) => self.bar(terminal, stage).set_message(words.to_owned()),
            None => self.line(&format!("{stage}: {words}")),
        }
    }

    /// A stage is done; it has no line of its own any more.
    pub fn done(&self, stage: &str, words: &str) {
        if let Some(bar) = self.bars.lock().unwrap_or_else(PoisonError::into_inner).remove(stage) {
            bar.finish_and_clear();
        }
        self.line(&format!("{stage}: {words}"));
    }

    /// A line of a step's output.
    pub fn output(&self, stage: &str, line: &str) {
        self.line(&format!("{stage} | {line}"));
    }

    /// Something that people should know of.
    pub fn warn(&self, words: &str) {
        self.print(&format!("warning: {words}"));
    }

    /// Begins to count bytes.
    #[must_use]
    pub fn transfer(&self, stage: &str, words: &'static str, total: u64) -> Transfer<'_> {
        self.state(stage, &format!("{words} {}", human_size(total)));
        let (done, reported) = (AtomicU64::new(0), Mutex::new(Instant::now()));
        Transfer { progress: self, stage: stage.to_owned(), words, total, done, reported }
    }

    fn bar(&self, terminal: &MultiProgress, stage: &str) -> ProgressBar {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars.entry(stage.to_owned()).or_insert_with(|| {
            let bar = terminal.add(ProgressBar::new_spinner());
            // A template of our own that does not parse shows the usual line.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(stage.to_owned());
            bar.enable_steady_tick(TICK);
            bar
        });
        bar.clone()
    }

    fn line(&self, text: &str) {
        if !self.quiet {
            self.print(text);
        }
    }

    fn print(&self, text: &str) {
        // A terminal that is gone must not stop the build.
        let _ = match &self.terminal {
            Some(terminal) => terminal.println(text),
            None => writeln!(io::stderr().lock(), "{text}"),
        };
    }
}

impl Transfer<'_> {
    /// Counts bytes that came.
    pub fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let words = || format!("{} {} of {}", self.words, human_size(done), human_size(self.total));
        if let Some(terminal) = &self.progress.terminal {
            self.progress.bar(terminal, &self.stage).set_message(words());
            return;
        }
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.elapsed() >= REPORT {
            *reported = Instant::now();
            self.progress.state(&self.stage, &words());
        }
    }
}
