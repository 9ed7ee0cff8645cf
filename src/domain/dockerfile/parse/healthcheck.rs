//! HEALTHCHECK: its options, with durations as Go writes them, and its command.

use std::time::Duration;

use super::{
    super::{
        ast::{Check, CommandLine, Healthcheck, Instruction},
        problem::{Located, Problem},
    },
    flags::{Flags, Kind, Unquoted},
    instruction::{Context, Statement},
    suggest::closest,
};

const FLAGS: [(&str, Kind); 5] = [
    ("interval", Kind::Value),
    ("timeout", Kind::Value),
    ("start-period", Kind::Value),
    ("start-interval", Kind::Value),
    ("retries", Kind::Value),
];

/// What Docker takes as the shortest time between checks.
const SHORTEST: Duration = Duration::from_millis(1);

pub(super) fn parse(context: &mut Context, statement: &Statement<'_>) -> Result<Instruction, Problem> {
    let flags = context.flags(statement, &FLAGS, "HEALTHCHECK");
    let arguments = statement.arguments;
    let end = arguments.text().find(char::is_whitespace).unwrap_or(arguments.text().len());
    let (kind, rest) = (arguments.sub(0, end), arguments.from(end).trim());
    let check = match kind.text().to_ascii_uppercase().as_str() {
        "NONE" if rest.is_empty() => Healthcheck::None,
        "NONE" => return Err(rest.problem("HEALTHCHECK NONE takes nothing more")),
        "CMD" => {
            let command = context.command(rest)?.value;
            let empty = match &command {
                CommandLine::Shell(text) => text.is_empty(),
                CommandLine::Exec(words) => words.is_empty(),
            };
            if empty {
                return Err(kind.problem("HEALTHCHECK CMD needs a command"));
            }
            options(context, &flags, command)
        }
        "" => return Err(statement.keyword.problem("HEALTHCHECK needs NONE or CMD and a command")),
        other => {
            let message = format!("HEALTHCHECK takes NONE or CMD, found `{other}`");
            return Err(kind.problem(message).suggesting(closest(other, ["NONE", "CMD"])));
        }
    };
    Ok(Instruction::Healthcheck(Located::new(check, kind.at())))
}

fn options(context: &mut Context, flags: &Flags, command: CommandLine) -> Healthcheck {
    let mut time = |name: &str| {
        let value = flags.value(name)?;
        duration(value, name).map_err(|problem| context.problems.push(problem)).ok()
    };
    let (interval, timeout) = (time("interval"), time("timeout"));
    let (start_period, start_interval) = (time("start-period"), time("start-interval"));
    let retries = flags.value("retries").and_then(|value| {
        let retries = value.text.parse::<u32>().ok().filter(|retries| i32::try_from(*retries).is_ok());
        if retries.is_none() {
            let message = format!("--retries takes a number, found `{}`", value.text);
            context.problems.push(value.problem(message));
        }
        retries
    });
    Healthcheck::Check(Check { interval, timeout, start_period, start_interval, retries, command })
}

fn duration(value: &Unquoted, name: &str) -> Result<Duration, Problem> {
    match go_duration(&value.text) {
        Some(time) if time.is_zero() || time >= SHORTEST => Ok(time),
        Some(_) => Err(value.problem(format!("--{name} is at least 1ms"))),
        None => {
            let message = format!("--{name} takes a time as in 30s or 1m30s, found `{}`", value.text);
            Err(value.problem(message))
        }
    }
}

/// `1h15m30.5s` and its like; `0` needs no unit. Negative times are none.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0_u64;
    loop {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(end)?;
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(unit_end)?;
        let nanoseconds: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(scaled(number, nanoseconds)?)?;
        rest = next;
        if rest.is_empty() {
            break;
        }
    }
    // Go keeps times as signed nanoseconds.
    i64::try_from(total).ok().map(|_| Duration::from_nanos(total))
}

/// `number`, with a fraction perhaps, times `unit`.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.chars() {
        place /= 10;
        total = total.checked_add(u64::from(digit.to_digit(10)?).checked_mul(place)?)?;
    }
    Some(total)
}
