//! What the standard `OTEL_*` variables ask for, where OpenTelemetry's own builders do not read them.

use std::str::FromStr;

use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::trace::Sampler;

/// The address of every signal that has none of its own.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
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
    /// An address that cannot be used.
    #[error("the collector's address cannot be used")]
    Exporter(#[from] ExporterBuildError),
}

/// Reads a variable; an empty one counts as absent.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// Which signals are pushed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub traces: bool,
    pub metrics: bool,
    pub logs: bool,
}

impl Wanted {
    /// What the environment asks for.
    pub(super) fn from(said: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let disabled = said(DISABLED).is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let signal = |name: &str| {
            let own = format!("OTEL_EXPORTER_OTLP_{name}_ENDPOINT");
            let exporter = said(&format!("OTEL_{name}_EXPORTER"));
            let is_off = disabled || exporter.is_some_and(|text| text == "none");
            !is_off && (said(ENDPOINT).is_some() || said(&own).is_some())
        };
        let wanted = Self {
            traces: signal("TRACES"),
            metrics: signal("METRICS"),
            logs: signal("LOGS"),
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

/// How many spans or log records wait at most, as this variable says.
pub(super) fn room(said: impl Fn(&str) -> Option<String>, name: &str) -> usize {
    let asked = said(name).and_then(|text| text.parse().ok());
    asked.filter(|room| *room > 0).unwrap_or(ROOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<'a>(variables: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    fn wanted(variables: &[(&str, &str)]) -> Result<Wanted, Error> {
        Wanted::from(said(variables))
    }

    #[test]
    fn nothing_is_pushed_without_an_address() {
        let off = Wanted::default();
        assert_eq!(wanted(&[]).unwrap(), off);
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        assert_eq!(wanted(&[http]).unwrap(), off);
    }

    #[test]
    fn each_signal_is_turned_on_and_off_by_its_own_variables() {
        let all = (ENDPOINT, "http://127.0.0.1:4317");
        let everything = Wanted {
            traces: true,
            metrics: true,
            logs: true,
        };
        assert_eq!(wanted(&[all]).unwrap(), everything);
        let no_logs = wanted(&[all, ("OTEL_LOGS_EXPORTER", "none")]).unwrap();
        assert!(no_logs.traces && no_logs.metrics && !no_logs.logs);
        let own = wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4317")]).unwrap();
        assert!(own.traces && !own.metrics && !own.logs);
        assert_eq!(
            wanted(&[all, (DISABLED, "TRUE")]).unwrap(),
            Wanted::default()
        );
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
        assert_eq!(room(said(&[]), "Q"), ROOM);
    }
}
