//! What PostgreSQL returns for an event is known and limited when it is accepted: against a real PostgreSQL.

use http::Method;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use pulse_core::{Limits, parse_event, repair};
use pulse_tests::{Process, TestEnv};
use serde_json::{Value, json};

const EVENTS: &str = "/api/v1/events";
const BATCH: &str = "/api/v1/events/batch";
const LIMITS: Limits = Limits { event_bytes: 1 << 20, depth: 32 };
/// The default of `--max-event-bytes`, and what PostgreSQL may return for such an event.
const EVENT_BYTES: usize = 32 * 1024;
const STORED_BYTES: usize = 2 * EVENT_BYTES;
/// Two text fields with three bytes.
const FIELDS: &str = r#""event_name":"é","event_type":"b""#;

fn event(payload: &str) -> String {
    format!(r#"{{{FIELDS},"payload":{payload}}}"#)
}

/// An event with an array of `count` numbers `1e-400`, each of 6 bytes as sent and 402 bytes as stored.
fn growing_event(count: usize) -> String {
    event(&format!(r#"{{"n":[{}]}}"#, vec!["1e-400"; count].join(",")))
}

fn white_space() -> impl Strategy<Value = String> {
    prop_oneof![9 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"]
}

/// Numbers of all forms that the API accepts, except negative zeros.
fn number() -> impl Strategy<Value = String> {
    let exponent = prop_oneof![
        3 => Just(String::new()),
        1 => "[eE][+-]?0{0,2}[0-9]",
        1 => (-400..=309).prop_map(|exponent| format!("e{exponent}")),
    ];
    ("-?(0|[1-9][0-9]{0,30})(\\.(0{0,9}|[0-9]{0,20})[0-9])?", exponent)
        .prop_map(|(mantissa, exponent)| {
            (mantissa.contains(['1', '2', '3', '4', '5', '6', '7', '8', '9']), mantissa + &exponent)
        })
        .prop_filter("not a negative zero", |(is_positive, number)| *is_positive || !number.starts_with('-'))
        .prop_map(|(_, number)| number)
        .prop_filter("in the range of a double", |number| number.parse::<f64>().is_ok_and(f64::is_finite))
}

/// The inside of a string: characters and escapes.
fn characters() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[^\"\\\\\u{0}-\u{1f}]{0,6}",
        select(&[r"\n", r"\t", r"\r", r"\b", r"\f", r"\/", r#"\""#, r"\\"][..]).prop_map(str::to_owned),
        r"\\u00[0-7][0-9a-fA-F]",
        r"\\u[0-9a-fA-F]{4}",
        r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}",
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// JSON values in which no object has a key twice.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => number(),
        3 => characters().prop_map(|characters| format!(r#""{characters}""#)),
        1 => select(&["true", "false", "null", "[]", "{}"][..]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 40, 8, |inner| {
        let items = (white_space(), inner, white_space()).prop_map(|(before, item, after)| before + &item + &after);
        let items = prop::collection::vec(items, 0..8).boxed();
        let members = prop::collection::vec((characters(), white_space()), 8);
        prop_oneof![
            items.clone().prop_map(|items| format!("[{}]", items.join(","))),
            (items, members).prop_map(|(items, members)| {
                let members = items.iter().zip(members).enumerate();
                let members = members.map(|(n, (item, (key, space)))| format!(r#"{space}"{n}{key}"{space}:{item}"#));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

/// Returns how many bytes PostgreSQL returns for each of the payloads.
async fn returned(env: &TestEnv, payloads: &[String]) -> anyhow::Result<Vec<i32>> {
    let sql = "SELECT octet_length(sent::jsonb::text) FROM unnest($1) WITH ORDINALITY AS _ (sent, n) ORDER BY n";
    Ok(sqlx::query_scalar(sql).bind(payloads).fetch_all(&env.db).await?)
}

/// Parses an event with the payload. Returns the payload as accepted and the bytes that are expected for it.
fn accept(payload: &str) -> (String, usize) {
    let text = event(payload);
    let (text, _) = repair(&text);
    let (event, _) = parse_event(&text, &LIMITS, false).unwrap_or_else(|errors| panic!("{payload}: {errors:?}"));
    (event.payload, event.stored_bytes - "éb".len())
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_bytes_are_those_that_postgresql_returns() -> anyhow::Result<()> {
    let env = TestEnv::unmigrated().await?;
    let mut runner = TestRunner::deterministic();
    let (mut payloads, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..3000 {
        let value = value().new_tree(&mut runner).map_err(anyhow::Error::msg)?.current();
        let (payload, bytes) = accept(&format!("{{ \"v\":{value}}}"));
        payloads.push(payload);
        expected.push(bytes);
    }
    for ((payload, bytes), returned) in payloads.iter().zip(expected).zip(returned(&env, &payloads).await?) {
        assert_eq!(usize::try_from(returned)?, bytes, "{payload}");
    }

    // Each with the number of bytes that PostgreSQL drops, though they count; and the values that grow most.
    let special = [
        (r#"{"a":1,"a":[2,3]}"#.to_owned(), r#""a": 1, "#.len()),
        (r#"{"a":1,"\u0061":1}"#.to_owned(), r#""a": 1, "#.len()),
        (r#"{"n":[-0,-0.0,-0e-400,-0E9]}"#.to_owned(), "----".len()),
        (format!(r#"{{"n":[{}1e-400]}}"#, "1e-400,".repeat(2000)), 0),
        (format!(r#"{{"n":[{}0]}}"#, "0,".repeat(9000)), 0),
        (format!(r#"{{"n":[0.{zeros}1e-400,-9.5e300,1.{zeros}e-400]}}"#, zeros = "0".repeat(990)), 0),
        (format!(r#"{{"n":{}{}}}"#, "[".repeat(30), "]".repeat(30)), 0),
    ];
    let (payloads, counted): (Vec<_>, Vec<_>) = special.iter().map(|(payload, _)| accept(payload)).unzip();
    for (((payload, dropped), bytes), returned) in special.iter().zip(counted).zip(returned(&env, &payloads).await?) {
        assert_eq!(usize::try_from(returned)? + dropped, bytes, "{payload}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_grow_in_postgresql_are_too_large() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = api.client("ada");
    let growing = growing_event(4673);
    assert!(growing.len() <= EVENT_BYTES, "{} bytes as sent", growing.len());

    let single = client.send(Method::POST, EVENTS, &[], growing.clone().into()).await?;
    assert_eq!((single.status, single.json["code"].as_str()), (413, Some("event_too_large")), "{}", single.text);
    let detail = single.json["detail"].as_str().unwrap_or_default();
    let bytes = format!("{} bytes when it is read back", growing_stored_bytes(4673));
    assert!(detail.contains(&bytes) && detail.contains("as strings"), "{detail}");
    assert_eq!(single.json["errors"][0]["loc"], json!(["body", "payload"]));

    let batch = format!(r#"{{"events":[{{{FIELDS}}},{growing},{{{FIELDS}}}]}}"#);
    let whole = client.send(Method::POST, BATCH, &[], batch.clone().into()).await?;
    assert_eq!((whole.status, whole.json["code"].as_str()), (422, Some("validation_error")), "{}", whole.text);
    let errors = |errors: &Value| (errors[0]["index"].clone(), errors[0]["type"].clone(), errors[1].clone());
    assert_eq!(errors(&whole.json["errors"]), (json!(1), json!("event_too_large"), Value::Null));

    let lenient = client.send(Method::POST, BATCH, &[("prefer", "handling=lenient")], batch.into()).await?;
    assert_eq!((lenient.status, &lenient.json["event_count"]), (202, &json!(2)), "{}", lenient.text);
    let rejected = &lenient.json["results"][1];
    assert_eq!(errors(&rejected["errors"]).1, json!("event_too_large"), "{rejected}");
    assert_eq!(env.number("SELECT count(*) FROM events").await?, 2);

    // The largest event of this form that is accepted.
    let largest = (1..).find(|count| growing_stored_bytes(count + 1) > STORED_BYTES).unwrap_or_default();
    for (count, status) in [(largest, 202), (largest + 1, 413)] {
        let answer = client.send(Method::POST, EVENTS, &[], growing_event(count).into()).await?;
        assert_eq!(answer.status, status, "{count} numbers: {}", answer.text);
    }
    let stored = "SELECT max(octet_length(payload::text || event_name || event_type))::bigint FROM events";
    assert_eq!(usize::try_from(env.number(stored).await?)?, growing_stored_bytes(largest));
    Ok(())
}

/// What PostgreSQL returns for [`growing_event`]: fields, brackets, and numbers with separators.
fn growing_stored_bytes(count: usize) -> usize {
    "éb".len() + r#"{"n": []}"#.len() + count * 402 + (count - 1) * ", ".len()
}
