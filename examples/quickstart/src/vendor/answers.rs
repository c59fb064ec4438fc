//! What the vendor answers, worked out from the coordinates: a rough climate, the longest day, the nearest large port.

use hyper::StatusCode;
use serde_json::{Value, json};
use url::form_urlencoded;

/// Why a call is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    why: String,
}

impl Refusal {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }

    pub(super) fn body(&self) -> String {
        json!({ "error": self.why }).to_string()
    }
}

/// The answer of an endpoint, as JSON text.
pub(super) fn of(endpoint: &str, query: &str, body: &[u8]) -> Result<String, Refusal> {
    let answer = match endpoint {
        "climate" => climate(number(query, "latitude")?, number(query, "altitude_m")?),
        "daylight" => daylight(number(query, "latitude")?),
        "port" => nearest_port(number(query, "latitude")?, number(query, "longitude")?),
        "survey" => survey(body)?,
        _ => return Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no /{endpoint}"))),
    };
    Ok(answer.to_string())
}

fn number(query: &str, name: &str) -> Result<f64, Refusal> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let given = pairs.find(|(key, _)| key == name).and_then(|(_, value)| value.parse::<f64>().ok());
    let given = given.filter(|number| number.is_finite());
    given.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, format!("the query needs a number `{name}`")))
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// 27.5 °C at the equator, falling with the square of the latitude and by 6.5 °C per 1,000 m.
fn climate(latitude: f64, altitude_m: f64) -> Value {
    json!({ "mean_c": tenths(27.5 - 0.0075 * latitude * latitude - 0.0065 * altitude_m.max(0.0)) })
}

/// Hours between sunrise and sunset on the longest day, without refraction.
fn daylight(latitude: f64) -> Value {
    let tilt = 23.44_f64.to_radians();
    let cosine = -latitude.abs().to_radians().tan() * tilt.tan();
    json!({ "longest_h": tenths(cosine.clamp(-1.0, 1.0).acos().to_degrees() * 2.0 / 15.0) })
}

const PORTS: [(&str, f64, f64); 16] = [
    ("Callao", -12.05, -77.15),
    ("Durban", -29.87, 31.03),
    ("Jebel Ali", 25.01, 55.06),
    ("Lagos", 6.45, 3.36),
    ("Los Angeles", 33.74, -118.27),
    ("Mombasa", -4.05, 39.63),
    ("Nhava Sheva", 18.95, 72.95),
    ("New York", 40.68, -74.15),
    ("Piraeus", 37.94, 23.63),
    ("Rotterdam", 51.95, 4.14),
    ("Santos", -23.98, -46.30),
    ("Shanghai", 30.63, 122.06),
    ("Singapore", 1.26, 103.84),
    ("Sydney", -33.97, 151.22),
    ("Vancouver", 49.29, -123.11),
    ("Yokohama", 35.44, 139.65),
];

fn nearest_port(latitude: f64, longitude: f64) -> Value {
    let distances =
        PORTS.map(|(name, lat, long)| (name, great_circle_km((latitude, longitude), (lat, long))));
    let nearest = distances.into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
    nearest.map_or(Value::Null, |(name, km)| json!({ "name": name, "distance_km": km.round() }))
}

/// By the haversine formula, on a sphere of 6,371 km.
fn great_circle_km(from: (f64, f64), to: (f64, f64)) -> f64 {
    let (lat1, lat2) = (from.0.to_radians(), to.0.to_radians());
    let (half_lat, half_long) = ((lat2 - lat1) / 2.0, (to.1 - from.1).to_radians() / 2.0);
    let chord = half_lat.sin().powi(2) + lat1.cos() * lat2.cos() * half_long.sin().powi(2);
    2.0 * 6_371.0 * chord.sqrt().min(1.0).asin()
}

fn survey(body: &[u8]) -> Result<Value, Refusal> {
    const SURVEYORS: [&str; 4] = ["Amina", "Bruno", "Chen", "Dolores"];
    let order: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}")))?;
    let (Some(place), Some(score)) = (order["place"].as_str(), order["score"].as_f64()) else {
        return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "`place` and `score` are needed"));
    };
    let surveyor = SURVEYORS[place.len() % SURVEYORS.len()];
    Ok(json!({ "surveyor": surveyor, "days": if score < 25.0 { 3 } else { 1 } }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::of;

    fn answer(endpoint: &str, query: &str, body: &str) -> Value {
        let text = of(endpoint, query, body.as_bytes()).map_err(|refusal| refusal.body());
        text.map_or_else(Value::from, |text| serde_json::from_str(&text).unwrap_or_default())
    }

    #[test]
    fn answers_follow_from_the_coordinates() {
        let berlin = "latitude=52.52&longitude=13.40&altitude_m=34";
        assert_eq!(answer("port", berlin, ""), json!({ "name": "Rotterdam", "distance_km": 633.0 }));
        let hours = answer("daylight", berlin, "")["longest_h"].as_f64().unwrap();
        assert!((16.4..16.8).contains(&hours), "{hours}");
        assert_eq!(answer("daylight", "latitude=80", ""), json!({ "longest_h": 24.0 }));
        assert_eq!(answer("daylight", "latitude=0", ""), json!({ "longest_h": 12.0 }));
        let (low, high) = ("latitude=0&altitude_m=0", "latitude=0&altitude_m=2000");
        assert_eq!(answer("climate", low, ""), json!({ "mean_c": 27.5 }));
        assert_eq!(answer("climate", high, ""), json!({ "mean_c": 14.5 }));
    }

    #[test]
    fn calls_that_make_no_sense_are_refused_with_the_reason() {
        for (endpoint, query, body, word) in [
            ("climate", "latitude=north", "", "latitude"),
            ("port", "latitude=1", "", "longitude"),
            ("survey", "", "{", "no JSON"),
            ("survey", "", "{}", "needed"),
            ("weather", "", "", "no /weather"),
        ] {
            let text = of(endpoint, query, body.as_bytes()).unwrap_err().body();
            assert!(text.contains(word), "{text}");
        }
    }
}
