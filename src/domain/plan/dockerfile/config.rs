//! Instructions that say how the image runs, and do nothing in their stage.

use serde_json::{Value, json};

use crate::domain::dockerfile::{
    Instruction, Located, Word,
    ast::{Check, CommandLine, Healthcheck},
};

use super::stage::Work;

impl Work<'_> {
    /// Instructions that say how the image runs and do nothing in the stage.
    pub(super) fn image_only(&mut self, instruction: &Instruction) {
        match instruction {
            Instruction::Cmd(line) => {
                self.built.config.cmd = Some(self.built.command(&line.value));
                self.has_cmd = true;
            }
            Instruction::Entrypoint(line) => {
                self.built.config.entrypoint = Some(self.built.command(&line.value));
                // A CMD from before this stage was meant for another program.
                self.built.config.cmd.take_if(|_| !self.has_cmd);
            }
            Instruction::Shell(shell) => {
                self.built.shell.clone_from(&shell.value);
                self.built.config.shell = Some(shell.value.clone());
            }
            Instruction::Expose(words) => {
                for word in words {
                    for port in self.built.scope.words(&self.open.globals, word, self.problems) {
                        self.expose(word, &port);
                    }
                }
            }
            Instruction::Volume(words) => {
                for word in words {
                    let Some(volume) = self.word(word) else { continue };
                    if !self.has_room(word.at, self.built.config.volumes.len()) {
                        return;
                    }
                    let volumes = &mut self.built.config.volumes;
                    if !volumes.contains(&volume) {
                        volumes.push(volume);
                    }
                }
            }
            Instruction::StopSignal(word) => self.built.config.stop_signal = self.word(word),
            Instruction::Healthcheck(check) => {
                let check = match &check.value {
                    Healthcheck::None => json!({"Test": ["NONE"]}),
                    Healthcheck::Check(check) => healthcheck(check),
                };
                self.built.config.healthcheck = Some(check);
            }
            Instruction::Maintainer(author) => self.built.config.author = Some(author.value.clone()),
            // The others are dealt with by the caller.
            _ => {}
        }
    }

    /// `80`, `80/udp` or a range `8000-8002`.
    fn expose(&mut self, word: &Located<Word>, text: &str) {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse::<u16>(), last.parse::<u16>(), protocol.to_lowercase()) {
            (Ok(first), Ok(last), protocol)
                if first <= last && first > 0 && matches!(protocol.as_str(), "tcp" | "udp" | "sctp") =>
            {
                for port in (first..=last).map(|port| format!("{port}/{protocol}")) {
                    if !self.has_room(word.at, self.built.config.ports.len()) {
                        return;
                    }
                    let ports = &mut self.built.config.ports;
                    if !ports.contains(&port) {
                        ports.push(port);
                    }
                }
            }
            _ => {
                let message = format!("`{text}` is no port, expected for example 8080, 53/udp or 8000-8010/tcp");
                self.problem(word.at, word.value.raw(), message);
            }
        }
    }
}

/// A `HealthcheckConfig` of the Docker image specification; times in nanoseconds.
fn healthcheck(check: &Check) -> Value {
    let test: Vec<String> = match &check.command {
        CommandLine::Shell(text) => vec!["CMD-SHELL".into(), text.clone()],
        CommandLine::Exec(command) => std::iter::once("CMD".to_owned()).chain(command.iter().cloned()).collect(),
    };
    let mut value = json!({"Test": test});
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    let Some(object) = value.as_object_mut() else { return value };
    for (key, time) in times {
        let nanoseconds = time.and_then(|time| u64::try_from(time.as_nanos()).ok()).filter(|time| *time > 0);
        if let Some(nanoseconds) = nanoseconds {
            object.insert(key.into(), json!(nanoseconds));
        }
    }
    if let Some(retries) = check.retries.filter(|retries| *retries > 0) {
        object.insert("Retries".into(), json!(retries));
    }
    value
}
