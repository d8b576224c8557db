use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

/// A table of a gatekeeper's own, as `[nats]` is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Nats {
    url: String,
    user: Option<String>,
    password: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    cache_bytes: u64,
    limit_bytes: Option<u64>,
    verbose: bool,
    names: Vec<String>,
    data: BTreeMap<String, PathBuf>,
    nats: Nats,
    health: Health,
    telemetry: Telemetry,
    liveness: Liveness,
}

#[derive(Default, Serialize)]
struct Flags {
    cache_bytes: Option<u64>,
    nats: NatsFlags,
}

#[derive(Default, Serialize)]
struct NatsFlags {
    url: Option<String>,
    password: Option<String>,
}

fn check(file: &str, variables: &[(&str, &str)], flags: &impl Serialize) -> Result<Config, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.toml");
    std::fs::write(&path, file).unwrap();
    let variables = variables
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    load_from(Some(&path), variables, flags)
}

fn refusal(file: &str, variables: &[(&str, &str)], flags: &impl Serialize) -> String {
    check(file, variables, flags).unwrap_err().to_string()
}

#[test]
fn nothing_said_gives_the_defaults() {
    assert_eq!(
        load_from::<Config>(None, [], &()).unwrap(),
        Config::default()
    );
    assert_eq!(Config::default().liveness.idle_ms, 60_000);
}

#[test]
fn each_layer_wins_over_the_one_before() {
    let file = "cache_bytes = 1\n[nats]\nurl = 'nats://file'\nuser = 'file'";
    let variables = [
        ("FEDPIPE_CACHE_BYTES", "2"),
        ("FEDPIPE_NATS__URL", "nats://env"),
    ];
    let flags = Flags {
        cache_bytes: Some(3),
        ..Flags::default()
    };
    let of_file = check(file, &[], &()).unwrap();
    assert_eq!(
        (of_file.cache_bytes, of_file.nats.url.as_str()),
        (1, "nats://file")
    );
    let of_env = check(file, &variables, &Flags::default()).unwrap();
    assert_eq!(
        (of_env.cache_bytes, of_env.nats.url.as_str()),
        (2, "nats://env")
    );
    let of_flags = check(file, &variables, &flags).unwrap();
    assert_eq!(
        (of_flags.cache_bytes, of_flags.nats.url.as_str()),
        (3, "nats://env")
    );
    assert_eq!(of_flags.nats.user.as_deref(), Some("file"));
}

#[test]
fn the_environment_is_read_as_the_fields_type() {
    let variables = [
        ("FEDPIPE_VERBOSE", "true"),
        ("FEDPIPE_LIMIT_BYTES", "7"),
        ("FEDPIPE_NAMES", "[a, b]"),
        ("FEDPIPE_DATA__MAIL", "/srv/mail"),
        ("FEDPIPE_HEALTH__LISTEN", "127.0.0.1:9000"),
        ("FEDPIPE_LIVENESS__IDLE_MS", "2000"),
        ("FEDPIPE_TELEMETRY__FORMAT", "json"),
        ("FEDPIPE_NATS__PASSWORD", "0123"),
        ("FEDPIPE_NATS__USER", "true"),
    ];
    let config = check("", &variables, &()).unwrap();
    assert!(config.verbose);
    assert_eq!(config.limit_bytes, Some(7));
    assert_eq!(config.names, ["a", "b"]);
    assert_eq!(config.data["mail"], Path::new("/srv/mail"));
    assert_eq!(config.health.listen.port(), 9000);
    assert_eq!(config.liveness.idle_ms, 2000);
    assert_eq!(config.telemetry.format, Format::Json);
    assert_eq!(config.nats.password.unwrap().expose(), "0123");
    assert_eq!(config.nats.user.as_deref(), Some("true"));
}

#[test]
fn variables_that_are_not_configuration_are_left_alone() {
    let variables = [
        ("FEDPIPE_TOOLS", "/x"),
        ("FEDPIPE_NATS", "/x"),
        ("PATH", "/x"),
    ];
    assert_eq!(check("", &variables, &()).unwrap(), Config::default());
}

#[test]
fn an_unknown_key_is_refused_with_its_name_and_place() {
    let top = refusal("casche_bytes = 1", &[], &());
    assert!(
        top.contains("site.toml: casche_bytes: no such key"),
        "{top}"
    );
    let nested = refusal("[nats]\nuri = 'x'", &[], &());
    assert!(
        nested.contains("site.toml: nats.uri: no such key"),
        "{nested}"
    );
    let variable = refusal("", &[("FEDPIPE_NATS__URI", "x")], &());
    assert!(
        variable.contains("environment variable FEDPIPE_NATS__URI: nats.uri: no such key"),
        "{variable}"
    );
    let flag = refusal("", &[], &serde_json::json!({"natts": 1}));
    assert!(flag.contains("command line: natts: no such key"), "{flag}");
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_name_and_place() {
    let file = refusal("[liveness]\nidle_ms = 'soon'", &[], &());
    assert!(file.contains("site.toml: liveness.idle_ms: "), "{file}");
    let hasty = refusal("[liveness]\nidle_ms = 5", &[], &());
    assert!(
        hasty.contains("site.toml: liveness.idle_ms: 5 ms is less"),
        "{hasty}"
    );
    let variable = refusal("", &[("FEDPIPE_CACHE_BYTES", "much")], &());
    assert!(
        variable.contains("FEDPIPE_CACHE_BYTES: cache_bytes: "),
        "{variable}"
    );
}

#[test]
fn a_missing_file_and_a_broken_file_are_told_apart() {
    let missing = load_from::<Config>(Some(Path::new("/nowhere/a.toml")), [], &());
    assert!(matches!(missing, Err(Error::Read { .. })), "{missing:?}");
    let broken = check("a = = 1", &[], &());
    assert!(matches!(broken, Err(Error::Parse { .. })), "{broken:?}");
}

#[test]
fn secrets_are_never_shown() {
    let flags = Flags {
        nats: NatsFlags {
            password: Some("sesame".to_owned()),
            ..NatsFlags::default()
        },
        ..Flags::default()
    };
    let config = check("", &[], &flags).unwrap();
    let secret = config.nats.password.clone().unwrap();
    assert_eq!(secret.expose(), "sesame");
    for shown in [
        dump(&config).unwrap(),
        format!("{config:?}"),
        secret.to_string(),
    ] {
        assert!(
            shown.contains("***") && !shown.contains("sesame"),
            "{shown}"
        );
    }
    let refused = refusal("[nats]\npassword = 4711", &[], &());
    assert!(
        refused.contains("nats.password") && !refused.contains("4711"),
        "{refused}"
    );
}

#[test]
fn a_dump_without_secrets_reads_back_and_one_with_is_refused() {
    let config = check("cache_bytes = 5\n[data]\nmail = '/m'", &[], &()).unwrap();
    assert_eq!(check(&dump(&config).unwrap(), &[], &()).unwrap(), config);
    let refused = refusal("[nats]\npassword = '***'", &[], &());
    assert!(
        refused.contains("nats.password") && refused.contains("redacted"),
        "{refused}"
    );
}

#[test]
fn every_time_of_liveness_follows_from_the_idle_knob() {
    let times = |idle_ms| {
        let l = Liveness { idle_ms };
        [
            l.ack_wait_ms(),
            l.beat_ms(),
            l.give_up_ms(),
            l.lease_ms(),
            l.sweep_ms(),
        ]
    };
    assert_eq!(times(60_000), [60_000, 3000, 180_000, 120_000, 5000]);
    assert_eq!(times(2000), [2000, 1000, 6000, 4000, 1000]);
    assert_eq!(times(100), [100, 50, 300, 200, 250]);
    assert!(times(0)[1] > 0);
}
