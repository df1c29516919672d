//! How a value is read: each reader states what it allows, and says exactly that when it refuses.
//!
//! A value comes from a TOML file with its type, or from the environment as text, so each reader takes both. Nothing is
//! guessed beyond that: `12.5` is no integer, `yes` is no boolean, and a secret such as `0012` stays what was written.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;

/// An integer from `MIN` to `MAX`, in any unsigned type that holds it.
pub(super) fn int<'de, const MIN: u64, const MAX: u64, D: Deserializer<'de>, T: TryFrom<u64>>(
    from: D,
) -> Result<T, D::Error> {
    let value = match Value::deserialize(from)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    value
        .filter(|value| (MIN..=MAX).contains(value))
        .and_then(|value| T::try_from(value).ok())
        .ok_or_else(|| Error::custom(format_args!("must be an integer from {MIN} to {MAX}")))
}

/// A time in whole milliseconds, from `MIN` to `MAX`.
pub(super) fn ms<'de, const MIN: u64, const MAX: u64, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    int::<MIN, MAX, D, u64>(from)
        .map(Duration::from_millis)
        .map_err(|_| Error::custom(format_args!("must be an integer of milliseconds from {MIN} to {MAX}")))
}

/// A list of integers from `MIN` to `MAX`: an array in TOML, integers with commas between them in the environment.
pub(super) fn list_of_int<'de, const MIN: u64, const MAX: u64, D: Deserializer<'de>, T: TryFrom<u64>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    let items = match Value::deserialize(from)? {
        Value::Array(items) => items,
        Value::String(text) => split(&text).map(Value::from).collect(),
        other => vec![other],
    };
    let read = items.into_iter().map(|item| int::<MIN, MAX, _, T>(item)).collect::<Result<Vec<_>, _>>();
    read.map_err(|_| Error::custom(format_args!("must be a list of integers from {MIN} to {MAX}")))
}

/// A list of times in whole milliseconds.
pub(super) fn list_of_ms<'de, const MIN: u64, const MAX: u64, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<Duration>, D::Error> {
    let all = list_of_int::<MIN, MAX, D, u64>(from)?;
    Ok(all.into_iter().map(Duration::from_millis).collect())
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// A number from `MIN` to `MAX`.
pub(super) fn number<'de, const MIN: u64, const MAX: u64, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let value = match Value::deserialize(from)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    value
        .filter(|value| (MIN as f64..=MAX as f64).contains(value))
        .ok_or_else(|| Error::custom(format_args!("must be a number from {MIN} to {MAX}")))
}

/// `true` or `false`.
pub(super) fn boolean<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    match Value::deserialize(from)? {
        Value::Bool(value) => Ok(value),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        _ => Err(Error::custom("must be true or false")),
    }
}

/// Text, as it was written.
pub(super) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    match Value::deserialize(from)? {
        Value::String(text) => Ok(text),
        _ => Err(Error::custom("must be text in quotes")),
    }
}

/// Text that is never shown; empty means that there is none.
pub(super) fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretString>, D::Error> {
    let text = text(from)?;
    Ok((!text.is_empty()).then(|| SecretString::from(text)))
}

/// A list of words: an array in TOML, words with commas between them in the environment.
pub(super) fn words<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let refused = || Error::custom("must be a list of words");
    match Value::deserialize(from)? {
        Value::Array(items) => {
            items.into_iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(refused)).collect()
        }
        Value::String(text) => {
            Ok(text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect())
        }
        _ => Err(refused()),
    }
}

/// An address to listen on. Names are not resolved: what is bound must be plain to see.
pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    Value::deserialize(from)?
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::custom("must be an IP address and a port, such as 127.0.0.1:8080"))
}

/// One of the words in `choices`, with what each stands for.
pub(super) fn one_of<'de, D: Deserializer<'de>, T: Copy>(from: D, choices: &[(&str, T)]) -> Result<T, D::Error> {
    let value = Value::deserialize(from)?;
    choices.iter().find(|(word, _)| value.as_str() == Some(word)).map(|(_, choice)| *choice).ok_or_else(|| {
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        Error::custom(format_args!("must be {}", words.join(" or ")))
    })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use serde_json::json;

    use super::*;

    fn message<T>(result: Result<T, serde_json::Error>) -> String {
        result.err().expect("must be refused").to_string()
    }

    #[test]
    fn an_integer_is_read_from_a_number_and_from_text() {
        assert_eq!(int::<1, 10, _, u32>(json!(7)).unwrap(), 7);
        assert_eq!(int::<1, 10, _, usize>(json!("7")).unwrap(), 7);
    }

    #[test]
    fn an_integer_outside_its_bounds_or_of_another_type_is_refused_with_the_bounds() {
        for bad in [json!(0), json!(11), json!(-1), json!(1.5), json!("1.5"), json!(""), json!(true), json!([1])] {
            assert_eq!(message(int::<1, 10, _, u32>(bad)), "must be an integer from 1 to 10");
        }
    }

    #[test]
    fn a_time_names_its_unit_when_it_is_refused() {
        assert_eq!(ms::<1, 10, _>(json!("5")).unwrap(), Duration::from_millis(5));
        assert_eq!(message(ms::<1, 10, _>(json!("5s"))), "must be an integer of milliseconds from 1 to 10");
    }

    #[test]
    fn a_boolean_is_never_guessed() {
        assert!(boolean(json!("true")).unwrap() && !boolean(json!(false)).unwrap());
        for bad in [json!("yes"), json!(1), json!("TRUE"), json!("")] {
            assert_eq!(message(boolean(bad)), "must be true or false");
        }
    }

    #[test]
    fn a_secret_keeps_its_leading_zeros_and_an_empty_one_is_none() {
        assert_eq!(secret(json!("0012")).unwrap().unwrap().expose_secret(), "0012");
        assert!(secret(json!("")).unwrap().is_none());
        assert_eq!(message(secret(json!(12))), "must be text in quotes");
    }

    #[test]
    fn a_list_is_read_from_an_array_and_from_text_with_commas() {
        assert_eq!(words(json!(["a", "b"])).unwrap(), ["a", "b"]);
        assert_eq!(words(json!("a, b,")).unwrap(), ["a", "b"]);
        assert_eq!(message(words(json!([1]))), "must be a list of words");
    }

    #[test]
    fn a_list_of_integers_has_the_same_two_forms_and_bounds() {
        assert_eq!(list_of_int::<1, 65_535, _, u16>(json!("443, 8443")).unwrap(), [443, 8443]);
        assert_eq!(list_of_ms::<1, 10, _>(json!([5])).unwrap(), [Duration::from_millis(5)]);
        assert!(list_of_int::<1, 65_535, _, u16>(json!("")).unwrap().is_empty());
        for bad in [json!([0]), json!("443;80"), json!(70_000), json!({})] {
            let reason = message(list_of_int::<1, 65_535, _, u16>(bad));
            assert_eq!(reason, "must be a list of integers from 1 to 65535");
        }
    }

    #[test]
    fn a_number_that_is_not_finite_is_refused() {
        assert!((number::<0, 1, _>(json!("0.2")).unwrap() - 0.2).abs() < f64::EPSILON);
        assert_eq!(message(number::<0, 1, _>(json!("NaN"))), "must be a number from 0 to 1");
    }

    #[test]
    fn an_address_needs_a_port_and_a_choice_one_of_its_words() {
        assert_eq!(address(json!("[::1]:0")).unwrap().to_string(), "[::1]:0");
        assert!(message(address(json!("localhost"))).contains("an IP address and a port"));
        assert_eq!(message(one_of(json!("xml"), &[("text", 1), ("json", 2)])), "must be text or json");
    }
}
