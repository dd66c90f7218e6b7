//! INFO of several servers as one text that tools can read as they read one server's.
//!
//! Owns the rule for each field: added up, the highest, the least, or one value that all share. What differs and
//! cannot be added up (ports, run ids, percentiles) is left out: a value of one server would be taken for the whole.

use std::fmt::Write as _;

/// Digits behind the point of a number that is made here: no server prints more.
const MOST_DECIMALS: usize = 17;

/// Fields in the order in which they first appeared, each with the values of the servers that have it.
type Fields = Vec<(String, Vec<String>)>;

/// The sections of all shards, and behind them the proxy's own. One shard's text is passed on as it is.
pub(super) fn merged(texts: &[(&str, &[u8])], own: &str) -> String {
    let mut out = match texts {
        [(_, only)] => String::from_utf8_lossy(only).into_owned(),
        _ => whole(texts),
    };
    if !own.is_empty() {
        if !out.is_empty() {
            out.push_str("\r\n");
        }
        out.push_str(own);
    }
    out
}

fn whole(texts: &[(&str, &[u8])]) -> String {
    let mut sections: Vec<(String, Fields)> = Vec::new();
    for (_, text) in texts {
        read(&String::from_utf8_lossy(text), &mut sections);
    }
    let mut out = String::new();
    for (title, fields) in &sections {
        if !out.is_empty() {
            out.push_str("\r\n");
        }
        let _ = write!(out, "# {title}\r\n");
        for (name, values) in fields {
            let value = match name.strip_suffix("_human") {
                Some(base) => fields
                    .iter()
                    .find(|(other, _)| other == base)
                    .and_then(|(_, values)| one_value(title, base, values, texts.len()))
                    .and_then(|bytes| human(&bytes)),
                None => one_value(title, name, values, texts.len()),
            };
            if let Some(value) = value {
                let _ = write!(out, "{name}:{value}\r\n");
            }
        }
    }
    out
}

fn read(text: &str, sections: &mut Vec<(String, Fields)>) {
    let mut at = None;
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("# ") {
            let known = sections.iter().position(|(known, _)| known == title);
            at = Some(known.unwrap_or_else(|| {
                sections.push((title.to_owned(), Vec::new()));
                sections.len() - 1
            }));
        } else if let (Some(at), Some((name, value))) = (at, line.split_once(':')) {
            let fields = &mut sections[at].1;
            match fields.iter_mut().find(|(known, _)| known == name) {
                Some((_, values)) => values.push(value.to_owned()),
                None => fields.push((name.to_owned(), vec![value.to_owned()])),
            }
        }
    }
}

/// How the values of a field become one.
enum Rule {
    Sum,
    Highest,
    Least,
    /// The value that all servers have; none if they differ.
    Shared,
    /// `ok` if all say so, else what the first says that does not.
    Worst,
    /// `name=number,...`, added up name by name, but for means.
    Counts,
    Never,
}

fn rule(section: &str, name: &str) -> Rule {
    match section {
        "Keyspace" | "Commandstats" | "Errorstats" => Rule::Counts,
        "Latencystats" => Rule::Never,
        "CPU" => Rule::Sum,
        "Server" if name.starts_with("uptime") || name.ends_with("_version") => Rule::Least,
        "Clients" => match name {
            "maxclients" => Rule::Shared,
            _ if name.starts_with("client_") => Rule::Highest,
            _ => Rule::Sum,
        },
        "Memory" => match name {
            "total_system_memory" | "maxmemory_policy" | "mem_allocator" => Rule::Shared,
            _ if name.ends_with("_ratio") || name.ends_with("_perc") => Rule::Highest,
            _ => Rule::Sum,
        },
        "Persistence" => match name {
            "rdb_changes_since_last_save" | "rdb_saves" | "aof_rewrites" => Rule::Sum,
            "rdb_last_save_time" => Rule::Least,
            _ if name.ends_with("_status") => Rule::Worst,
            _ if name.ends_with("_size") => Rule::Sum,
            _ => Rule::Highest,
        },
        "Stats" => match name {
            "latest_fork_usec" => Rule::Highest,
            _ if name.ends_with("_perc") => Rule::Highest,
            _ => Rule::Sum,
        },
        "Replication" if name == "connected_slaves" => Rule::Sum,
        _ => Rule::Shared,
    }
}

/// The one value for these; `None` if there is none that would be true.
fn one_value(section: &str, name: &str, values: &[String], servers: usize) -> Option<String> {
    let numbers =
        || -> Option<Vec<f64>> { values.iter().map(|value| value.parse().ok()).collect() };
    let decimals = values.iter().filter_map(|value| value.split_once('.'));
    let decimals = decimals.map(|(_, part)| part.len()).max().unwrap_or(0);
    let decimals = decimals.min(MOST_DECIMALS);
    let shown = |number: f64| Some(format!("{number:.decimals$}"));
    match rule(section, name) {
        Rule::Sum => shown(numbers()?.iter().sum()),
        Rule::Highest => shown(numbers()?.into_iter().fold(f64::MIN, f64::max)),
        Rule::Least if name.ends_with("_version") => {
            let parts = |text: &String| -> Vec<u32> {
                text.split('.')
                    .map(|part| part.parse().unwrap_or(0))
                    .collect()
            };
            values.iter().min_by_key(|value| parts(value)).cloned()
        }
        Rule::Least => shown(numbers()?.into_iter().fold(f64::MAX, f64::min)),
        Rule::Shared => {
            let first = values.first()?;
            let shared = values.len() == servers && values.iter().all(|value| value == first);
            shared.then(|| first.clone())
        }
        Rule::Worst => {
            let not_ok = values.iter().find(|value| *value != "ok");
            not_ok.or(values.first()).cloned()
        }
        Rule::Counts => counts(values),
        Rule::Never => None,
    }
}

/// `keys=1,expires=0,avg_ttl=0` and the like added up: means are weighted by what they are means of.
fn counts(values: &[String]) -> Option<String> {
    let mut sums: Vec<(&str, f64)> = Vec::new();
    let rows: Option<Vec<Vec<(&str, f64)>>> = values
        .iter()
        .map(|value| {
            let parts = value.split(',').map(|part| {
                let (name, number) = part.split_once('=')?;
                Some((name, number.parse().ok()?))
            });
            parts.collect()
        })
        .collect();
    for row in rows? {
        let of = |wanted: &str| {
            row.iter()
                .find(|(name, _)| *name == wanted)
                .map_or(0.0, |of| of.1)
        };
        for &(name, number) in &row {
            let number = match weight(name) {
                Some(weight) => number * of(weight),
                None => number,
            };
            match sums.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += number,
                None => sums.push((name, number)),
            }
        }
    }
    let of = |wanted: &str| {
        sums.iter()
            .find(|(name, _)| *name == wanted)
            .map_or(0.0, |of| of.1)
    };
    let parts: Vec<String> = sums
        .iter()
        .map(|&(name, sum)| match weight(name) {
            Some(weight) => {
                let decimals = if name == "avg_ttl" { 0 } else { 2 };
                format!("{name}={:.decimals$}", sum / of(weight).max(1.0))
            }
            None => format!("{name}={sum:.0}"),
        })
        .collect();
    Some(parts.join(","))
}

/// What a mean is the mean of.
fn weight(name: &str) -> Option<&'static str> {
    match name {
        "avg_ttl" => Some("expires"),
        "usec_per_call" => Some("calls"),
        _ => None,
    }
}

/// Bytes as Redis writes them for people.
fn human(bytes: &str) -> Option<String> {
    let mut number: f64 = bytes.parse().ok()?;
    if number < 1024.0 {
        return Some(format!("{number:.0}B"));
    }
    let mut units = ["K", "M", "G", "T", "P"].into_iter();
    let mut unit = "";
    while number >= 1024.0
        && let Some(larger) = units.next()
    {
        number /= 1024.0;
        unit = larger;
    }
    Some(format!("{number:.2}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::merged;

    fn two(a: &str, b: &str) -> String {
        merged(&[("a", a.as_bytes()), ("b", b.as_bytes())], "")
    }

    #[test]
    fn memory_is_added_up_and_written_for_people_again() {
        let text = two(
            "# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\nmem_fragmentation_ratio:1.50\r\n",
            "# Memory\r\nused_memory:524288\r\nused_memory_human:512.00K\r\nmem_fragmentation_ratio:2.25\r\n",
        );
        assert_eq!(
            text,
            "# Memory\r\nused_memory:1572864\r\nused_memory_human:1.50M\r\nmem_fragmentation_ratio:2.25\r\n"
        );
    }

    /// More digits than Rust prints: it panics above 65535.
    #[test]
    fn a_number_with_endless_digits_is_shortened() {
        let text = format!("# CPU\r\nused_cpu_sys:1.{}\r\n", "0".repeat(70_000));
        assert_eq!(
            two(&text, &text),
            format!("# CPU\r\nused_cpu_sys:2.{}\r\n", "0".repeat(17))
        );
    }

    #[test]
    fn a_keyspace_is_the_sum_of_its_parts_with_its_mean() {
        let text = two(
            "# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=1000\r\n",
            "# Keyspace\r\ndb0:keys=4,expires=3,avg_ttl=2000\r\ndb5:keys=1,expires=0,avg_ttl=0\r\n",
        );
        assert_eq!(
            text,
            "# Keyspace\r\ndb0:keys=7,expires=4,avg_ttl=1750\r\ndb5:keys=1,expires=0,avg_ttl=0\r\n"
        );
    }

    #[test]
    fn what_differs_and_makes_no_sum_is_left_out() {
        let text = two(
            "# Server\r\nredis_version:7.0.15\r\ntcp_port:1\r\nhz:10\r\n",
            "# Server\r\nredis_version:7.0.9\r\ntcp_port:2\r\nhz:10\r\n",
        );
        assert_eq!(text, "# Server\r\nredis_version:7.0.9\r\nhz:10\r\n");
    }

    #[test]
    fn one_that_is_not_ok_is_what_all_together_are() {
        let text = two(
            "# Persistence\r\nrdb_last_bgsave_status:ok\r\nloading:0\r\n",
            "# Persistence\r\nrdb_last_bgsave_status:err\r\nloading:1\r\n",
        );
        assert_eq!(
            text,
            "# Persistence\r\nrdb_last_bgsave_status:err\r\nloading:1\r\n"
        );
    }

    #[test]
    fn one_servers_text_stays_as_it_is_and_the_proxys_section_follows() {
        let text = merged(
            &[("a", b"# Server\r\ntcp_port:1\r\n")],
            "# Shoal\r\nx:1\r\n",
        );
        assert_eq!(text, "# Server\r\ntcp_port:1\r\n\r\n# Shoal\r\nx:1\r\n");
    }
}
