//! One stage: copies first, then one script.

use serde_json::{Value, json};

use super::{
    Conversion, copy, plain,
    script::{Line, Script},
    yaml,
};
use crate::{
    api::v1alpha1::{Copy, EnvVar, Stage},
    domain::{
        dockerfile::Problem,
        plan::{SOURCE_STAGE, StagePlan},
        recipe::{CopyItem, Step},
    },
};

/// The CRD's bound for `run`.
const LONGEST_SCRIPT: usize = 32_768;

/// A stage in the making.
struct Making<'a> {
    conversion: &'a Conversion<'a>,
    plan: &'a StagePlan,
    number: Option<usize>,
    copies: Vec<Copy>,
    lines: Vec<Line>,
    /// Whether a RUN came before a copy.
    reordered: bool,
    problems: &'a mut Vec<Problem>,
}

pub(super) fn convert(conversion: &Conversion<'_>, plan: &StagePlan, problems: &mut Vec<Problem>) -> Value {
    let number = conversion.stage_number(&plan.name);
    let (copies, lines) = (Vec::new(), Vec::new());
    let mut making = Making { conversion, plan, number, copies, lines, reordered: false, problems };
    for step in &plan.steps {
        making.step(step);
    }
    making.finish()
}

impl Making<'_> {
    fn step(&mut self, step: &Step) {
        match step {
            Step::CopySource { items, owner, transient, .. } => {
                self.copy(SOURCE_STAGE, items, owner.as_deref(), *transient);
            }
            Step::CopyArtifact { input, owner, transient, .. } => {
                let conversion = self.conversion;
                if let Some(from) = self.plan.inputs.get(*input) {
                    self.copy(&from.stage, conversion.items(from), owner.as_deref(), *transient);
                }
            }
            Step::Run { command, env, working_dir, user, mounts, offline } => {
                self.check_user(user.as_deref());
                if !mounts.is_empty() {
                    self.problem("RUN", "stages have no RUN --mount, nor programs as here-documents");
                }
                if *offline {
                    self.problem("RUN", "stages have no RUN --network=none");
                }
                let directory = working_dir.clone();
                self.lines.push(Line::Run { command: command.clone(), env: env.clone(), directory });
            }
            Step::MakeDirectory { path, user } => {
                self.check_user(user.as_deref());
                self.lines.push(Line::MakeDirectory(path.clone()));
            }
            Step::WriteFiles { .. } => self.problem("COPY", "stages have no files of here-documents"),
        }
    }

    fn copy(&mut self, from: &str, items: &[CopyItem], owner: Option<&str>, transient: bool) {
        if transient {
            return self.problem("RUN", "stages have no RUN --mount=type=bind");
        }
        if owner.is_some_and(|owner| !owner.bytes().all(|byte| byte.is_ascii_digit() || byte == b':')) {
            self.problem("COPY", "copies of stages have numeric owners only: give --chown numbers");
        }
        self.reordered |= self.lines.iter().any(|line| matches!(line, Line::Run { .. }));
        let place = |item: &CopyItem| self.conversion.place_of(self.number, item);
        let copies = items.iter().filter_map(|item| copy(from, item, place(item), self.problems));
        self.copies.extend(copies);
    }

    /// A stage runs as its builder image's own user, all of it.
    fn check_user(&mut self, user: Option<&str>) {
        let own = self.plan.image.as_ref().and_then(|image| self.conversion.users.get(image));
        let own = own.map(String::as_str).filter(|own| !matches!(*own, "" | "0" | "root" | "0:0" | "root:root"));
        if user != own {
            let own = own.unwrap_or("root");
            self.problem(
                "USER",
                &format!("a stage runs as its builder image's own user, {own}, from its start to its end"),
            );
        }
    }

    fn problem(&mut self, instruction: &str, message: &str) {
        let at = self.conversion.place(self.number, instruction);
        // One place is told once, however many steps came of it.
        if !self.problems.iter().any(|problem| problem.at == at && problem.message == message) {
            self.problems.push(Problem::new(at, instruction, message));
        }
    }

    fn finish(self) -> Value {
        let script = Script::new(&self.lines, self.conversion.file, &self.conversion.runs(self.number));
        if script.run.as_ref().is_some_and(|run| run.len() > LONGEST_SCRIPT) {
            let at = self.conversion.place(self.number, "RUN");
            let message =
                format!("all RUNs of the stage are over {LONGEST_SCRIPT} bytes: move them to a file of the source");
            self.problems.push(Problem::new(at, "RUN", message));
        }
        let env = script.env.into_iter().map(|(name, value)| EnvVar { name, value: Some(value), value_from: None });
        let stage = Stage {
            name: self.plan.name.clone(),
            image: self.plan.image.as_ref().map(ToString::to_string).unwrap_or_default(),
            env: env.collect(),
            // Without a copy that names the source a stage gets all of it.
            copy_source: self.copies.iter().any(|copy| copy.from == SOURCE_STAGE),
            copy: self.copies,
            run: script.run,
            command: script.command,
            working_dir: script.directory.map(|directory| directory.to_string()),
            ..Stage::default()
        };
        let mut comments = self.conversion.comment(self.number);
        if self.reordered {
            comments.push("All copies come before the script here; there a RUN came before some of them.".to_owned());
        }
        let mut fields = plain(&stage);
        if let Some(fields) = fields.as_object_mut() {
            fields.insert(yaml::COMMENT.into(), json!(comments));
        }
        fields
    }
}
