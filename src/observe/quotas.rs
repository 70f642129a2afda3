//! What clients take of their quotas, under the names that the JMX exporter gives to Kafka's beans of types `Produce`,
//! `Fetch`, `Request` and `ControllerMutation`. Only those that have a limit are counted.

use super::exposition::{Exposition, Kind};
use crate::security::quota::limits::Kind as Limited;
use crate::security::quota::meter::{Meter, QuotaFigure};

/// Users and clients with rows of their own.
const ROWS_MAX: usize = 1000;

/// Name, help, and its value, if the row has one.
type Row = (&'static str, &'static str, fn(&QuotaFigure) -> Option<f64>);

pub(super) fn of_clients(text: &mut Exposition, quotas: &Meter, now_ms: i64) {
    let figures = quotas.figures(ROWS_MAX, now_ms);
    let rows: [Row; 5] = [
        ("byte_rate", "Bytes each second.", |figure| {
            matches!(figure.kind, Limited::Produce | Limited::Fetch).then_some(figure.per_second)
        }),
        ("request_time", "Percent of a thread's time.", |figure| {
            (figure.kind == Limited::Request).then_some(figure.per_second)
        }),
        ("mutation_rate", "Partitions that are made or go, each second.", |figure| {
            (figure.kind == Limited::Mutation).then_some(figure.per_second)
        }),
        ("tokens", "Partitions that may be made or go at once.", |figure| figure.tokens),
        ("throttle_time", "Milliseconds that answers told to wait, on average of the last minute.", |figure| {
            figure.wait_ms.or(Some(0.0))
        }),
    ];
    for (name, help, of) in rows {
        let name = format!("kafka_server_quota_{name}");
        let mut family = text.family(&name, Kind::Gauge, help);
        for figure in &figures {
            let Some(value) = of(figure).filter(|value| value.is_finite()) else { continue };
            let names = [("user", &*figure.user), ("clientId", &*figure.client)];
            let mut labels = vec![("resource", figure.kind.resource())];
            labels.extend(names.into_iter().filter(|(_, name)| !name.is_empty()));
            family.row(&labels, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::metrics::rate::Windows;
    use crate::security::quota::limits::{Place, Quotas, Whom};

    #[test]
    fn rows_have_the_names_that_dashboards_ask_for() {
        let windows = Windows { samples: 11, window_ms: 1000 };
        let meter = Meter::new(windows, windows);
        let limit = |key: &str| BTreeMap::from([(key.to_owned(), "100".to_owned())]);
        let (produce, request) = (limit("producer_byte_rate"), limit("request_percentage"));
        let client = |client| Place { user: Whom::Any, client: Whom::Named(client) };
        let user = Place { user: Whom::Named("u".into()), client: Whom::Default };
        meter.set(Quotas::new([(client("c".into()), &produce), (user, &request)]));
        meter.record(Limited::Produce, &"u".into(), &"c".into(), 2000.0, 0);
        meter.record(Limited::Request, &"u".into(), &"d".into(), 10.0, 0);
        let mut text = Exposition::default();
        of_clients(&mut text, &meter, 0);
        let text = text.finish();
        for line in [
            "kafka_server_quota_byte_rate{resource=\"Produce\",clientId=\"c\"} 200\n",
            "kafka_server_quota_request_time{resource=\"Request\",user=\"u\",clientId=\"d\"} 1\n",
            "kafka_server_quota_throttle_time{resource=\"Produce\",clientId=\"c\"} 10000\n",
            "kafka_server_quota_throttle_time{resource=\"Request\",user=\"u\",clientId=\"d\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
