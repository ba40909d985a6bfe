//! The picture of `./dev bench peers`, drawn from a fixed small table.

#[path = "../bench/peers/src/picture.rs"]
mod picture;

use self::picture::{Panel, draw};

fn table() -> Vec<Panel<'static>> {
    vec![
        Panel { title: "Drain, jobs/s", bars: vec![("krilin", 60_000.0), ("other", 30_000.0)] },
        Panel { title: "Pickup, ms (less is better)", bars: vec![("krilin", 1.5), ("other", 3.0), ("a<b", 0.4)] },
        Panel { title: "Memory & more", bars: vec![("other", 250.0)] },
    ]
}

/// The values of an attribute, in the order in which they stand.
fn attributes<'s>(svg: &'s str, element: &str, attribute: &str) -> Vec<&'s str> {
    let elements = svg.split(element).skip(1);
    elements.filter_map(|rest| rest.split(&format!(" {attribute}=\"")).nth(1)?.split('"').next()).collect()
}

#[test]
fn the_picture_shows_every_value_to_scale_and_ours_in_colour() {
    let svg = draw(&table(), "krilin");
    assert_eq!(attributes(&svg, "<rect", "width"), ["180.0", "90.0", "90.0", "180.0", "24.0", "180.0"]);
    assert_eq!(attributes(&svg, "<rect", "class"), ["ours", "theirs", "ours", "theirs", "theirs", "theirs"]);
    for value in ["60.0k", "30.0k", ">1.5<", ">3.0<", ">0.4<", ">250<"] {
        assert!(svg.contains(value), "{value} in {svg}");
    }
    assert_eq!(attributes(&svg, "<g", "transform"), ["translate(0 0)", "translate(420 0)", "translate(0 122)"]);
    assert!(svg.contains("viewBox=\"0 0 800 244\""), "{svg}");
}

#[test]
fn the_picture_can_be_read_by_who_cannot_see_it_and_on_a_dark_page() {
    let svg = draw(&table(), "krilin");
    assert!(svg.contains("role=\"img\" aria-labelledby=\"title words\""), "{svg}");
    assert!(svg.contains("<title id=\"title\">krilin beside other job systems</title>"), "{svg}");
    let told = "Drain, jobs/s: krilin 60.0k, other 30.0k. Pickup, ms (less is better): krilin 1.5, other 3.0, a&lt;b 0.4. \
                Memory &amp; more: other 250.";
    assert!(svg.contains(&format!("<desc id=\"words\">{told}</desc>")), "{svg}");
    assert!(svg.contains("@media(prefers-color-scheme:dark)"), "{svg}");
    assert!(!svg.contains("a<b") && !svg.contains("& more"), "what is text stays text: {svg}");
    assert_eq!(svg.matches('<').count(), svg.matches('>').count(), "{svg}");
}
