//! The scenarios that ship with the load test are read as written.

use ringside_loadtest::scenario::Scenario;

#[test]
fn every_scenario_in_the_folder_is_valid() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let scenario = Scenario::load(&path).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(!scenario.description.is_empty(), "{} says nothing about itself", path.display());
        names.push(scenario.name);
    }
    names.sort();
    let expected = [
        "churn",
        "evenly-300",
        "fanout-1x49",
        "fanout-1x499",
        "full-mesh",
        "idle-500",
        "joins-1000",
        "screen-share",
        "soak",
        "study-room-10x50",
        "webinar-1x500",
    ];
    assert_eq!(names, expected);
}
