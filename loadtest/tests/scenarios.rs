//! The scenarios that ship with the load test are read as written, and every one of the folder ships.

use ringside_loadtest::scenario::{SHIPPED, Scenario};

#[test]
fn every_scenario_in_the_folder_is_valid_and_ships() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let scenario =
            Scenario::named(&Scenario::text(&path).unwrap(), &name).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(!scenario.description.is_empty(), "{name} says nothing about itself");
        names.push(scenario.name);
    }
    names.sort();
    let shipped: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, shipped);
}
