//! JSON of every kind that parsers disagree on, as a value in a payload and as the whole body: valid JSON is stored, invalid
//! JSON is 400, and no text is a server error.

use bytes::Bytes;
use http::Method;
use pulse_tests::{Client, Process, TestEnv};
use serde_json::Value;

/// Valid by RFC 8259.
const VALID: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "-1",
    "123456789012345678901234567890",
    "0.1",
    "-0.0",
    "1e1",
    "1E+2",
    "1e-2",
    "0e1",
    "0E+1",
    "1.5e300",
    "1e-7",
    "20e1",
    "123.456e78",
    "-123",
    "2.5",
    "0.000000000000000000000000000001",
    r#""""#,
    r#""a""#,
    r#""\"""#,
    r#""\\""#,
    r#""\/""#,
    r#""\b\f\n\r\t""#,
    r#""\u0041""#,
    r#""\u00e9""#,
    r#""\ud83d\ude00""#,
    r#""\u2028\u2029""#,
    "\"\u{2028}\u{2029}\"",
    "\"\u{7f}\"",
    "\"\u{fffe}\"",
    "\"\u{10ffff}\"",
    "\"😀\"",
    r#""\ufdd0""#,
    r#""\uDBFF\uDFFE""#,
    r#""\u200B""#,
    r#""\u0022""#,
    r#""\u005C""#,
    r#""/* no comment */""#,
    r#""\uFFFF""#,
    "\"€𝄞\"",
    "[]",
    "[ ]",
    "[[]]",
    "[1,\n2]",
    "[null,1,\"1\",{}]",
    "[[[[[[[[]]]]]]]]",
    " [1] ",
    "[1 ,2 ]",
    "\t1\r\n",
    "{}",
    r#"{"a":1}"#,
    r#"{"":0}"#,
    r#"{"a":1,"a":1}"#,
    r#"{"a":1,"a":2}"#,
    r#"{"a":{"b":[{}]}}"#,
    r#"{"\u0061":1}"#,
    r#"{"min":-1.0e+28,"max":1.0e+28}"#,
    r#"{"a":[]}"#,
    "{\"a\":\n\"b\"\n}",
    r#"{"foo\u0000bar":42}"#,
    r#""\u0000""#,
];

/// Invalid by RFC 8259.
const INVALID: &[&str] = &[
    "[1 true]",
    "[a]",
    "[\"\": 1]",
    "[\"\"],",
    "[,1]",
    "[1,,2]",
    "[1,]",
    "[1",
    "[1,\n1\n,1",
    "[\"x\"]]",
    "[\"\",]",
    "[x",
    "[3[4]]",
    "[\"a",
    "[,]",
    "[-]",
    "[   , \"\"]",
    "[*]",
    "[1,,]",
    "[fals]",
    "[nul]",
    "[tru]",
    "[++1234]",
    "[+1]",
    "[+Inf]",
    "[-01]",
    "[-1.0.]",
    "[-2.]",
    "[-NaN]",
    "[.-1]",
    "[.2e-3]",
    "[0.1.2]",
    "[0.3e+]",
    "[0.3e]",
    "[0.e1]",
    "[0E]",
    "[0e+]",
    "[1.0e+]",
    "[1.0e-]",
    "[1 000.0]",
    "[1eE2]",
    "[2.e+3]",
    "[2.e3]",
    "[9.e+]",
    "[Inf]",
    "[NaN]",
    "[Infinity]",
    "[1+2]",
    "[0x1]",
    "[0x42]",
    "[-Infinity]",
    "[--2.]",
    "[-foo]",
    "[- 1]",
    "[-012]",
    "[-.123]",
    "[-1x]",
    "[1ea]",
    "[1a]",
    "[1.]",
    "[.123]",
    "[１]",
    "[1.8011670033376514H-308]",
    "[1.2a-3]",
    "[012]",
    "[\"x\", truth]",
    "{[: \"x\"}",
    "{\"x\", null}",
    "{\"x\"::\"b\"}",
    "{🇨🇭}",
    "{\"a\":\"a\" 123}",
    "{key: 'value'}",
    "{\"a\" b}",
    "{:\"b\"}",
    "{\"a\" \"b\"}",
    "{\"a\":",
    "{\"a\"",
    "{1:1}",
    "{9999E9999:1}",
    "{null:null,null:null}",
    "{\"id\":0,,,,,}",
    "{'a':0}",
    "{\"id\":0,}",
    "{\"a\":\"b\"}/**/",
    "{\"a\":\"b\"}#",
    "{\"a\":\"b\"}/",
    "{\"a\":\"b\",,\"c\":\"d\"}",
    "{a: \"b\"}",
    "{\"a\":\"a",
    "{\"foo\":\"bar\", \"a\"}",
    "{\"a\":\"b\"}#{}",
    "\"",
    "\"\\",
    "[\"\\uD800\\\"]",
    "[\"\\uD800\\u\"]",
    "[\"\\uD800\\u1\"]",
    "[\"\\uD800\\u1x\"]",
    "[é]",
    "[\"\\x00\"]",
    "[\"\\\\\\\"]",
    "[\"\\\t\"]",
    "[\"\\🌀\"]",
    "[\"\\\"]",
    "[\"\\u00A\"]",
    "[\"\\uD834\\uDd\"]",
    "[\"\\a\"]",
    "[\"\\uqqqq\"]",
    "[\\u0020\"asd\"]",
    "[\\n]",
    "['single']",
    "abc",
    "[\"\\",
    "[\"new\nline\"]",
    "[\"\t\"]",
    "\"\\UA66D\"",
    "\"\"x",
    "<.>",
    "[<null>]",
    "[1]x",
    "[1]]",
    "[][]",
    "]",
    "\u{feff}\u{feff}{}",
    "1]",
    "{\"x\": true,",
    "[True]",
    "nan",
    "*",
    "{\"a\":\"b\"}#{}",
    "{]",
    "[}",
    "{,",
    "{\"a\":/*c*/\"b\"}",
    "{\"a\": true} \"x\"",
    "[",
    "{",
    "[{",
    "[\"a\",\n4\n,1,",
    "\u{2060}",
    "\u{c}",
    "[\u{b}]",
    "[\"a\u{0}a\"]",
    "é",
    "[\u{a0}1]",
    "//1",
    "1;",
    "01",
    "undefined",
];

/// Decided by each parser: numbers beyond a double, lone surrogates.
const OPEN: &[&str] = &[
    "[0.4e006699999999999999999999999999999999999999999999999]",
    "[-1e+9999]",
    "[1.5e+9999]",
    "[-123123e100000]",
    "[123123e100000]",
    "[123e-10000000]",
    "[-123123123123123123123123123123]",
    "[1e400]",
    "[1e-400]",
    "[1E309]",
    r#"["\uDADA"]"#,
    r#"["\uD888\u1234"]"#,
    r#"["\uD800\n"]"#,
    r#"["\uDd1ea"]"#,
    r#"["\uD800\uD800\n"]"#,
    r#"["\ud800"]"#,
    r#"["\ud800abc"]"#,
    r#"["\uDd1e\uD834"]"#,
    r#"["\uDFAA"]"#,
];

/// Posts a text and returns status, code and body.
async fn post(client: &Client, body: String) -> anyhow::Result<(u16, Value)> {
    let answer = client.send(Method::POST, "/api/v1/events", &[], Bytes::from(body)).await?;
    Ok((answer.status, answer.json))
}

/// Posts a text as a value of a payload.
async fn post_value(client: &Client, text: &str) -> anyhow::Result<(u16, Value)> {
    post(client, format!(r#"{{"event_name":"a","event_type":"t","payload":{{"v":{text}}}}}"#)).await
}

/// The value of a stored event.
async fn stored(client: &Client, accepted: &Value) -> anyhow::Result<Value> {
    Ok(client.get(&format!("/api/v1/events/{}", accepted["event_id"])).await?.json["payload"]["v"].clone())
}

/// Equal values: numbers as doubles, U+FFFD for NUL.
fn equal(sent: &Value, stored: &Value) -> bool {
    match (sent, stored) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::String(a), Value::String(b)) => a.replace('\0', "\u{fffd}") == *b,
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            let field = |name: &String| b.get(&name.replace('\0', "\u{fffd}"));
            a.len() == b.len() && a.iter().all(|(name, value)| field(name).is_some_and(|other| equal(value, other)))
        }
        (a, b) => a == b,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_of_parser_test_suites_is_stored_or_refused() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = api.client("ada");
    let mut failed = Vec::new();
    let mut check = |passed: bool, text: &str, got: &dyn std::fmt::Debug| {
        if !passed {
            failed.push(format!("{text:?}: {got:?}"));
        }
    };
    for text in VALID {
        let (status, answer) = post_value(&client, text).await?;
        let value = stored(&client, &answer).await?;
        check(status == 202 && equal(&serde_json::from_str(text)?, &value), text, &(&answer, &value));
        let whole = post(&client, (*text).to_owned()).await?;
        check(whole.0 == 422, text, &whole);
    }
    for text in INVALID {
        for answer in [post_value(&client, text).await?, post(&client, (*text).to_owned()).await?] {
            check(answer.0 == 400 && answer.1["code"] == "malformed_json", text, &answer);
        }
    }
    for text in OPEN {
        for answer in [post_value(&client, text).await?, post(&client, (*text).to_owned()).await?] {
            check(matches!(answer.0, 202 | 400 | 422), text, &answer);
        }
    }
    assert!(failed.is_empty(), "{} texts:\n{}", failed.len(), failed.join("\n"));
    assert_eq!(api.metric("status=\"500\"").await?, 0.0);
    Ok(())
}
