use super::*;

fn wrong(text: &str) -> String {
    parse("test.toml", text).unwrap_err().to_string()
}

const HEAD: &str = "name = \"x\"\nduration = \"1m\"\n";

#[test]
fn all_that_are_part_of_the_program_are_right() {
    for (name, text) in BUILT_IN {
        let scenario = parse(name, text).unwrap();
        assert!(scenario.nodes() > 1, "{name}");
        assert!(!scenario.about.is_empty(), "{name}");
    }
}

#[test]
fn an_error_names_the_line() {
    insta::assert_snapshot!(wrong("name = \"x\"\nduration = \"soon\""), @"test.toml, line 2: 'soon' is no time; write seconds (90, 1.5) or units (250ms, 90s, 5m, 1h30m, 2d)");
    insta::assert_snapshot!(wrong(&format!("{HEAD}\n[[home]]\nname = \"a\"\nisp = \"nort\"\n\n[[isp]]\nname = \"north\"")), @"test.toml, line 6: no provider is called 'nort'; there are north");
    insta::assert_snapshot!(wrong(&format!("{HEAD}[[home]]\nname = \"a\"\nnat = \"cone\"")), @"test.toml, line 5: no kind of NAT is called 'cone'; there are full-cone, full-cone-udp, address-restricted, port-restricted, symmetric, carrier-grade, udp-blocked, hairpin");
    insta::assert_snapshot!(wrong(&format!("{HEAD}[[home]]\nname = \"a\"\n[[server]]\nname = \"a\"")), @"test.toml, line 6: 'a' is already the name of a home");
    insta::assert_snapshot!(wrong(&format!("{HEAD}[[home]]\nname = \"a\"\n[[fault]]\nat = \"1s\"\nwhat = \"kill\"\nwho = \"a/2\"")), @"test.toml, line 8: there is no 'a/2': so many there are not");
    insta::assert_snapshot!(wrong(&format!("{HEAD}[[home]]\nname = \"a\"\n[[fault]]\nat = \"1s\"\nwhat = \"isp-down\"\nwho = \"a\"")), @"test.toml, line 8: 'a' is a home; this is for a provider");
    insta::assert_snapshot!(wrong(&format!("{HEAD}[[home]]\nname = \"a\"\n[[fault]]\nat = \"2m\"\nwhat = \"kill\"\nwho = \"a\"")), @"test.toml, line 7: this comes after the scenario's end");
    insta::assert_snapshot!(wrong(&format!("{HEAD}[[home]]\nname = \"a\"\n[[fault]]\nat = \"1s\"\nwhat = \"cut\"\nwho = \"a\"")), @"test.toml, line 7: this needs a 'who' (and 'to', where two are concerned): a region or a home or a server or a doorway");
}

#[test]
fn a_network_has_a_name_that_the_node_takes() {
    insta::assert_snapshot!(wrong(&format!("{HEAD}[[home]]\nname = \"a\"\nnetwork = \"the smiths\"")), @"test.toml, line 5: 'the smiths' must be 1 to 64 letters, digits, '-', '_' or '.'");
}

#[test]
fn what_is_not_known_is_an_error() {
    let unknown = wrong(&format!("{HEAD}color = \"blue\""));
    assert!(unknown.starts_with("test.toml, line 3: unknown field `color`"), "{unknown}");
    assert!(wrong(&format!("{HEAD}[[fault]]\nat = \"1s\"\nwhat = \"flood\"")).contains("line 5"));
}

#[test]
fn more_nodes_than_memory_holds_are_refused_before_the_start() {
    let text = wrong(&format!("{HEAD}[[home]]\nname = \"a\"\ncount = 4000000000\nnodes = 100"));
    assert!(text.starts_with("test.toml, line 5: 400000000000 nodes need about"), "{text}");
}

#[test]
fn a_name_that_is_neither_a_file_nor_built_in_is_told_so() {
    let error = load("lan-of-six").unwrap_err().to_string();
    assert!(error.contains("lan-of-five"), "{error}");
}
