//! What the standard `OTEL_*` variables ask for, where OpenTelemetry's own builders do not read them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::trace::Sampler;

use super::channel;

const DISABLED: &str = "OTEL_SDK_DISABLED";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";
const PROTOCOLS: [&str; 4] = [
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
];

/// What a queue holds if its variable does not say, as the standard has it.
const ROOM: usize = 2048;

/// What a queue holds at most.
const MOST_ROOM: usize = 65_536;

/// Why telemetry cannot be pushed as the environment asks.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A protocol that this program does not speak.
    #[error("{variable}={found}: this program pushes by grpc alone")]
    Protocol {
        /// Which variable says so.
        variable: &'static str,
        /// What it says.
        found: String,
    },
    /// A choice of traces that this program does not know.
    #[error(
        "{SAMPLER}={sampler}, {RATIO}={ratio}: known are always_on, always_off, and traceidratio of 0 to 1"
    )]
    Sampler {
        /// The choice.
        sampler: String,
        /// Its share of traces.
        ratio: String,
    },
    /// An address, or a file for TLS, that cannot be used.
    #[error(transparent)]
    Channel(#[from] channel::Error),
    /// Something else of an exporter.
    #[error("what sends to the collector cannot be made")]
    Exporter(#[from] ExporterBuildError),
}

/// Reads a variable; an empty one counts as absent.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// One of the three things that are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    /// Its name within its own variables.
    const fn name(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
        }
    }
}

/// What is asked for, and by which variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The variable.
    pub variable: String,
    /// What it says.
    pub value: String,
}

/// As it is logged: of an address that names somebody, with a password it may be, everything before the `@` as `***`.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, value } = self;
        let named = value.rsplit_once('@');
        let Some((scheme, host)) = named.and_then(|(before, host)| {
            let (scheme, _) = before.split_once("://")?;
            Some((scheme, host))
        }) else {
            return write!(f, "{variable}={value}");
        };
        let is_scheme = scheme.chars().all(|one| one.is_ascii_alphanumeric());
        let scheme = if is_scheme { scheme } else { "***" };
        write!(f, "{variable}={scheme}://***@{host}")
    }
}

/// What a signal is asked to do: by its own variable, or else by that of all signals.
pub(super) fn setting(
    said: impl Fn(&str) -> Option<String>,
    signal: Signal,
    what: &str,
) -> Option<Setting> {
    let own = format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.name());
    let variables = [own, format!("OTEL_EXPORTER_OTLP_{what}")];
    variables.into_iter().find_map(|variable| {
        let value = said(&variable)?;
        Some(Setting { variable, value })
    })
}

/// Which signals are pushed, and where to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub traces: Option<Setting>,
    pub metrics: Option<Setting>,
    pub logs: Option<Setting>,
}

impl Wanted {
    /// What the environment asks for.
    pub(super) fn from(said: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let disabled = said(DISABLED).is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let address = |signal: Signal| {
            let exporter = said(&format!("OTEL_{}_EXPORTER", signal.name()));
            let is_off = disabled || exporter.is_some_and(|text| text == "none");
            let address = setting(&said, signal, "ENDPOINT");
            address.filter(|_| !is_off)
        };
        let wanted = Self {
            traces: address(Signal::Traces),
            metrics: address(Signal::Metrics),
            logs: address(Signal::Logs),
        };
        let other = |variable: &&str| said(variable).is_some_and(|text| text != "grpc");
        match PROTOCOLS.into_iter().find(other) {
            Some(variable) if wanted != Self::default() => Err(Error::Protocol {
                variable,
                found: said(variable).unwrap_or_default(),
            }),
            _ => Ok(wanted),
        }
    }
}

/// Which traces are kept. A trace's number decides for all of its spans in every process, so what a parent's span was
/// decided to be is the same decision, and `parentbased_` changes nothing.
pub(super) fn sampler(said: impl Fn(&str) -> Option<String>) -> Result<Sampler, Error> {
    let Some(asked) = said(SAMPLER) else {
        return Ok(Sampler::AlwaysOn);
    };
    let ratio = said(RATIO);
    match asked.strip_prefix("parentbased_").unwrap_or(&asked) {
        "always_on" => return Ok(Sampler::AlwaysOn),
        "always_off" => return Ok(Sampler::AlwaysOff),
        "traceidratio" => {
            let share = ratio.as_deref().map_or(Ok(1.0), f64::from_str);
            if let Some(share) = share.ok().filter(|share| (0.0..=1.0).contains(share)) {
                return Ok(Sampler::TraceIdRatioBased(share));
            }
        }
        _ => {}
    }
    Err(Error::Sampler {
        sampler: asked,
        ratio: ratio.unwrap_or_default(),
    })
}

/// How many spans or log records wait at most, as this variable says. A queue takes its memory at once, so that there is
/// a limit to it.
pub(super) fn room(said: impl Fn(&str) -> Option<String>, name: &str) -> usize {
    let asked = said(name).and_then(|text| text.parse().ok());
    let legal = asked.filter(|room| *room > 0);
    legal.unwrap_or(ROOM).min(MOST_ROOM)
}

/// How long it is until what waits is sent again, as this variable says: always a while, or a core would do nothing
/// else.
pub(super) fn pause(
    said: impl Fn(&str) -> Option<String>,
    name: &str,
    usual: Duration,
) -> Duration {
    said(name)
        .as_deref()
        .and_then(milliseconds)
        .unwrap_or(usual)
}

/// A time that is not nothing.
pub(super) fn milliseconds(text: &str) -> Option<Duration> {
    let milliseconds = text
        .parse::<u64>()
        .ok()
        .filter(|milliseconds| *milliseconds > 0);
    milliseconds.map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

    fn said<'a>(variables: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    fn wanted(variables: &[(&str, &str)]) -> Result<Wanted, Error> {
        Wanted::from(said(variables))
    }

    /// Where traces, metrics and logs go.
    fn addresses(variables: &[(&str, &str)]) -> [Option<String>; 3] {
        let wanted = wanted(variables).unwrap();
        [wanted.traces, wanted.metrics, wanted.logs].map(|one| one.map(|one| one.value))
    }

    #[test]
    fn nothing_is_pushed_without_an_address() {
        let off = [const { None }; 3];
        assert_eq!(addresses(&[]), off);
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        assert_eq!(addresses(&[http]), off);
    }

    #[test]
    fn each_signal_is_turned_on_and_off_by_its_own_variables() {
        let address = |text: &str| Some(text.to_owned());
        let all = (ENDPOINT, "http://127.0.0.1:4317");
        let there = || address(all.1);
        assert_eq!(addresses(&[all]), [there(), there(), there()]);
        let no_logs = [all, ("OTEL_LOGS_EXPORTER", "none")];
        assert_eq!(addresses(&no_logs), [there(), there(), None]);
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4317");
        assert_eq!(addresses(&[own]), [address(own.1), None, None]);
        assert_eq!(addresses(&[all, own]), [address(own.1), there(), there()]);
        assert_eq!(addresses(&[all, (DISABLED, "TRUE")]), [None, None, None]);
    }

    #[test]
    fn whom_an_address_names_is_not_said() {
        let shown = |value: &str| {
            let (variable, value) = ("X".to_owned(), value.to_owned());
            Setting { variable, value }.to_string()
        };
        for plain in ["https://c:4317/a", "c:4317", "/etc/a@b.pem", ""] {
            assert_eq!(shown(plain), format!("X={plain}"));
        }
        for named in ["me", "me:word", "me:w/o@r?d", "me: w#rd", "://"] {
            let value = format!("https://{named}@c:4317");
            assert_eq!(shown(&value), "X=https://***@c:4317", "{value}");
        }
        assert_eq!(shown("me:word://x@c:4317"), "X=***://***@c:4317");
    }

    #[test]
    fn another_protocol_is_refused_by_name() {
        let refused = wanted(&[
            (ENDPOINT, "http://127.0.0.1:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ]);
        let text = refused.unwrap_err().to_string();
        assert!(
            text.contains("OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"),
            "{text}"
        );
    }

    #[test]
    fn a_sampler_is_the_same_with_and_without_a_parent() {
        let of = |variables: &[(&str, &str)]| format!("{:?}", sampler(said(variables)).unwrap());
        assert_eq!(of(&[]), "AlwaysOn");
        for name in ["always_off", "parentbased_always_off"] {
            assert_eq!(of(&[(SAMPLER, name)]), "AlwaysOff");
        }
        for name in ["traceidratio", "parentbased_traceidratio"] {
            let quarter = of(&[(SAMPLER, name), (RATIO, "0.25")]);
            assert_eq!(quarter, "TraceIdRatioBased(0.25)");
        }
        for (name, ratio) in [
            ("xray", "1"),
            ("traceidratio", "2"),
            ("traceidratio", "all"),
        ] {
            let refused = sampler(said(&[(SAMPLER, name), (RATIO, ratio)]));
            assert!(matches!(refused, Err(Error::Sampler { .. })), "{name}");
        }
    }

    #[test]
    fn a_queue_always_has_a_bound() {
        let of = |text: &str| room(said(&[("Q", text)]), "Q");
        assert_eq!((of("16"), of("0"), of("none")), (16, ROOM, ROOM));
        assert_eq!(of("1000000000000"), MOST_ROOM);
        assert_eq!(room(said(&[]), "Q"), ROOM);
    }

    #[test]
    fn there_is_always_a_pause() {
        let usual = Duration::from_secs(5);
        let of = |text: &str| pause(said(&[("P", text)]), "P", usual);
        assert_eq!(of("20"), Duration::from_millis(20));
        assert_eq!((of("0"), of("-1"), of("often")), (usual, usual, usual));
        assert_eq!(pause(said(&[]), "P", usual), usual);
    }
}
