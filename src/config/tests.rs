//! What the configuration takes and what it says about the rest.

use std::path::PathBuf;

use super::*;

fn with(settings: &[&str]) -> Result<Config, ConfigError> {
    Config::load(&Sources {
        settings: settings.iter().map(|s| (*s).into()).collect(),
        ..Sources::default()
    })
}

fn lines_of(settings: &[&str]) -> String {
    with(settings).unwrap_err().to_string()
}

#[test]
fn the_default_file_holds_exactly_the_keys_that_are_read() {
    let mut reader = Reader::new(Figment::from(Toml::string(DEFAULTS)), Vec::new());
    Config::read(&mut reader);
    let read: Vec<_> = reader.keys_read().iter().map(ToString::to_string).collect();
    let set: Vec<_> = reader.keys_set().into_iter().collect();
    assert_eq!(read, set);
}

#[test]
fn the_defaults_are_good_and_every_key_has_a_comment_above_it() {
    with(&[]).unwrap();
    let lines: Vec<_> = DEFAULTS.lines().collect();
    // Of a list of tables the first one tells what its keys are.
    let (mut list, mut told) = (None, std::collections::BTreeSet::new());
    for pair in lines.windows(2) {
        if pair[1].starts_with('[') {
            list = pair[1].strip_prefix("[[");
        }
        let is_key = pair[1].contains(" = ") && !pair[1].starts_with('#');
        let key = pair[1].split(" = ").next();
        let is_known = list.is_some_and(|list| is_key && !told.insert((list, key)));
        let is_told = is_known || pair[0].starts_with('#');
        assert!(!is_key || is_told, "{}", pair[1]);
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    insta::assert_snapshot!(lines_of(&[
        "http.listen=nowhere",
        "http.lisen=0.0.0.0:80",
        "http.cors_origins=[shop.example/x]",
        "webrtc.public_addrs=[media.example]",
        "webrtc.public_port=70000",
        "hls.part_ms_target=100",
        "hls.window_s=20",
        "limits.whep_max=many",
        "log.format=xml",
        "db.url=mysql://app:secret@db/live",
        "color=blue",
        "nonsense",
    ]));
}

#[test]
fn the_rules_over_several_keys_hold() {
    let cases = [
        ("hls.segment_ms_target=2200", "hls.segment_ms_target"),
        ("hls.segment_ms_target=6000", "hls.segment_ms_target"),
        ("hls.target_duration_s=7", "hls.window_s"),
        ("hls.dvr_s=30", "hls.dvr_s"),
        ("hls.dvr_s=21601", "hls.dvr_s"),
        ("convert.encoder=mpeg4", "convert.encoder"),
        (
            "convert.encoder_fallback=libx264",
            "convert.encoder_fallback",
        ),
        (
            "convert.encoder_fallback=[\"x\"]",
            "convert.encoder_fallback",
        ),
        ("ladder=7", "ladder"),
        ("ladder=[{lines=480}]", "ladder"),
        ("log.level=lamplight=loud", "log.level"),
        ("rtmp.tls_listen=127.0.0.1:1936", "rtmp.tls_listen"),
        ("rtmp.tls_listen=nowhere", "rtmp.tls_listen"),
        ("db.url=mysql://db/live", "db.url"),
    ];
    for (setting, key) in cases {
        let error = with(&[setting]).unwrap_err();
        assert_eq!(error.lines.len(), 1, "{error}");
        assert!(error.lines[0].starts_with(key), "{error}");
    }
}

/// One good rung with something else instead; then what the line says of it.
#[test]
fn a_ladder_is_taken_as_a_whole_and_its_first_fault_is_named() {
    let rung = |changes: &str| {
        let mut keys: std::collections::BTreeMap<&str, &str> = [
            ("lines", "480"),
            ("source_lines_min", "600"),
            ("source_lines_max", "0"),
            ("bitrate_bps", "900000"),
            ("audio_bps", "64000"),
            ("fps_max", "0"),
        ]
        .into();
        keys.extend(changes.split_once('='));
        let pairs: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
        format!("{{{}}}", pairs.join(", "))
    };
    let good = with(&[&format!("ladder=[{}]", rung(""))]).unwrap();
    assert_eq!(good.ladder.len(), 1);
    assert_eq!(good.ladder[0].bitrate_bps, 900_000);
    assert!(with(&["ladder=[]"]).unwrap().ladder.is_empty());
    let twice = [rung(""), rung("fps_max=30")].join(", ");
    let nine = [(); 9].map(|()| rung("")).join(", ");
    let cases = [
        (rung("lines=481"), "even, 144 to 2160"),
        (rung("lines=100"), "even, 144 to 2160"),
        (rung("source_lines_min=479"), "at least `lines`"),
        (rung("source_lines_max=599"), "source_lines_max"),
        (rung("bitrate_bps=1"), "50000 to 50000000"),
        (rung("audio_bps=1"), "16000 to 256000"),
        (rung("fps_max=241"), "0 to 240"),
        (twice, "another `lines`"),
        (nine, "at most 8"),
    ];
    for (rungs, says) in cases {
        let error = with(&[&format!("ladder=[{rungs}]")]).unwrap_err();
        assert!(error.lines[0].starts_with("ladder"), "{error}");
        assert!(error.lines[0].contains(says), "{says}: {error}");
    }
}

#[test]
fn a_certificate_and_its_key_are_set_together() {
    assert!(with(&[]).unwrap().http.tls.is_none());
    let both = ["http.tls_cert=a.pem", "http.tls_key=b.pem"];
    let tls = with(&both).unwrap().http.tls.unwrap();
    assert_eq!((tls.cert, tls.key), ("a.pem".into(), "b.pem".into()));
    for (setting, missing) in [(both[0], "http.tls_key"), (both[1], "http.tls_cert")] {
        let error = with(&[setting]).unwrap_err();
        assert_eq!(error.lines.len(), 1, "{error}");
        assert!(error.lines[0].starts_with(missing), "{error}");
    }
}

#[test]
fn an_ice_server_is_an_address_and_a_turn_server_has_a_user() {
    let good = with(&["webrtc.ice_servers=[\"stun:a.example\", \"turn:b.example anna secret\"]"]);
    let servers = good.unwrap().webrtc.ice_servers;
    let user = Some(("anna".to_owned(), "secret".to_owned()));
    assert_eq!(servers[0].url, "stun:a.example");
    assert_eq!(
        (servers[1].url.as_str(), &servers[1].user),
        ("turn:b.example", &user)
    );
    assert!(!format!("{servers:?}").contains("secret"));
    for bad in [
        "http://a.example",
        "stun:",
        "turn:a secret",
        "stun:a b c",
        "stun:a,b",
        "stun:<a>",
    ] {
        let error = with(&[&format!("webrtc.ice_servers=[\"{bad}\"]")]).unwrap_err();
        assert_eq!(error.lines.len(), 1, "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn a_later_source_wins_and_a_password_is_not_shown() {
    let dir = std::env::temp_dir().join(format!("lamplight-config-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file: PathBuf = dir.join("some.toml");
    std::fs::write(
        &file,
        "[rtmp]\nlisten = \"127.0.0.1:1\"\n[hls]\nwindow_s = 30\n",
    )
    .unwrap();
    let sources = Sources {
        file: Some(file.clone()),
        environment: false,
        presets: Vec::new(),
        settings: vec!["rtmp.listen=127.0.0.1:2".into()],
    };
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.rtmp.listen.port(), 2);
    assert_eq!(config.hls.window, Duration::from_secs(30));

    std::fs::write(&file, "[rtmp]\nlisten = 5\n").unwrap();
    let sources = Sources {
        file: Some(file.clone()),
        ..Sources::default()
    };
    let error = Config::load(&sources).unwrap_err().to_string();
    assert!(error.contains("some.toml"), "{error}");

    std::fs::write(&file, "[rtmp\nlisten").unwrap();
    assert_eq!(Config::load(&sources).unwrap_err().lines.len(), 1);
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(Config::load(&sources).unwrap_err().lines.len(), 1);

    let shown = format!("{:?}", with(&["db.url=postgres://u:secret@h/d"]).unwrap());
    assert!(!shown.contains("secret"), "{shown}");
    assert!(!lines_of(&["db.url=mysql://u:secret@h/d"]).contains("secret"));
}

#[test]
fn what_may_change_while_running_does_and_the_rest_is_named() {
    let old = with(&["webrtc.ice_servers=[\"stun:a.example\"]"]).unwrap();
    let newer = with(&[
        "convert.linger_s=1",
        "http.cors_origins=[\"https://shop.example\"]",
        "http.listen=127.0.0.1:1",
        "http.tls_cert=a.pem",
        "http.tls_key=b.pem",
        "hls.window_s=60",
        "limits.whep_max=7",
        "log.level=debug",
        "publish.takeover=refuse",
        "webrtc.public_port=5",
    ])
    .unwrap();
    let (next, left) = old.reloaded(&newer);
    assert_eq!(
        left,
        [
            "hls.window_s",
            "http.listen",
            "http.tls_cert",
            "http.tls_key"
        ]
    );
    assert_eq!(next.convert.linger, Duration::from_secs(1));
    assert_eq!(next.http.cors_origins, ["https://shop.example"]);
    assert_eq!(next.http.listen, old.http.listen);
    assert!(next.http.tls.is_none());
    assert_eq!(next.hls.window, old.hls.window);
    assert_eq!(next.limits.whep_max, 7);
    assert_eq!(next.log.level, "debug");
    assert_eq!(next.publish.takeover, Takeover::Refuse);
    assert_eq!(next.webrtc.public_port, 5);
    assert!(next.webrtc.ice_servers.is_empty());

    let again = next.reloaded(&newer);
    assert_eq!(again.1, left, "what needs a restart goes on needing it");
    assert!(next.reloaded(&next).1.is_empty());
    let certificates = with(&["http.tls_cert=c.pem", "http.tls_key=d.pem"]).unwrap();
    let (next, left) = newer.reloaded(&certificates);
    assert_eq!(next.http.tls, certificates.http.tls);
    assert!(!left.contains(&"http.tls_cert".to_owned()), "{left:?}");
}

#[test]
fn the_example_files_are_good() {
    for name in ["development.toml", "production.example.toml"] {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("config")
            .join(name);
        let sources = Sources {
            file: Some(file),
            ..Sources::default()
        };
        Config::load(&sources).unwrap();
    }
}
