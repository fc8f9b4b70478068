//! A run as one HTML page: who was connected with whom and by which path at each moment, with a slider, and histograms.
//! It opens from disk and asks for nothing else.

use std::{collections::BTreeMap, sync::atomic::AtomicBool};

use serde_json::{Value, json};

use crate::{
    engine::{Moment, SECOND},
    internet::Reach,
    run::{self, Report},
    scenario::{Plan, Scenario},
    swarm::Path,
};

/// Moments at which is looked, if the run is long enough for so many seconds.
const LOOKS: u64 = 600;
/// Spans of connections that a page holds; a browser draws about as many.
const MAX_SPANS: usize = 200_000;

const PAGE: &str = include_str!("report/page.html");

/// Runs a scenario and makes its page.
pub fn page(scenario: &Scenario, seed: u64, stop: &AtomicBool) -> (Report, String) {
    let interval = (scenario.duration.as_secs() / LOOKS).max(1) * SECOND;
    let mut seen = Seen::default();
    let (report, plan) = run::run_watched(scenario, seed, stop, &[], &mut |plan| seen.look(plan), interval);
    let data = data(&report, &plan, scenario, &seen, interval);
    // `</script>` in a name would end the data.
    let text = data.to_string().replace("</", "<\\/");
    let title = scenario.name.replace('&', "&amp;").replace('<', "&lt;");
    (report, PAGE.replace("{{TITLE}}", &title).replace("{{DATA}}", &text))
}

/// What stands, since when, and what stood.
#[derive(Default)]
struct Seen {
    open: BTreeMap<(u32, u32, Path), Moment>,
    links: Vec<(u32, u32, Path, Moment, Moment)>,
    cut: u64,
    off: Vec<Option<(Moment, bool)>>,
    away: Vec<(u32, bool, Moment, Moment)>,
}

impl Seen {
    fn look(&mut self, plan: &Plan) {
        let now = plan.world.now();
        let there: BTreeMap<(u32, u32, Path), Moment> = plan.world.links().map(|link| (link, now)).collect();
        let before = std::mem::take(&mut self.open);
        for ((a, b, path), since) in before {
            if there.contains_key(&(a, b, path)) {
                self.open.insert((a, b, path), since);
            } else {
                self.keep((a, b, path, since, now));
            }
        }
        for (link, now) in there {
            self.open.entry(link).or_insert(now);
        }
        self.off.resize(plan.world.machines().len(), None);
        for ((node, machine), off) in (0..).zip(plan.world.machines()).zip(&mut self.off) {
            let state = (!machine.on || machine.asleep).then_some(machine.asleep);
            if off.map(|(_, asleep)| asleep) != state {
                if let Some((since, asleep)) = off.take() {
                    self.away.push((node, asleep, since, now));
                }
                *off = state.map(|asleep| (now, asleep));
            }
        }
    }

    fn keep(&mut self, span: (u32, u32, Path, Moment, Moment)) {
        if self.links.len() < MAX_SPANS { self.links.push(span) } else { self.cut += 1 }
    }
}

fn data(report: &Report, plan: &Plan, scenario: &Scenario, seen: &Seen, interval: Moment) -> Value {
    let end = plan.world.now();
    let seconds = |at: Moment| at / SECOND;
    let room = MAX_SPANS.saturating_sub(seen.links.len());
    let open = seen.open.iter().map(|((a, b, path), since)| (*a, *b, *path, *since, end + interval)).take(room);
    let links: Vec<Value> = seen
        .links
        .iter()
        .copied()
        .chain(open)
        .map(|(a, b, path, from, to)| json!([a, b, path as u8, seconds(from), seconds(to)]))
        .collect();
    let still = (0..).zip(&seen.off).filter_map(|(node, off)| off.map(|(since, asleep)| (node, asleep, since)));
    let still = still.map(|(node, asleep, since)| (node, asleep, since, end + interval));
    let away: Vec<Value> = seen
        .away
        .iter()
        .copied()
        .chain(still)
        .map(|(node, asleep, from, to)| json!([node, u8::from(asleep), seconds(from), seconds(to)]))
        .collect();
    let nodes: Vec<Value> = (0..scenario.nodes() as u32)
        .map(|node| {
            let name = plan.node_name(node);
            let home = name.split_once('/').map(|(home, _)| home);
            json!({"name": name, "home": home})
        })
        .collect();
    let pairs: Vec<Value> = plan
        .world
        .pairs()
        .iter()
        .map(|pair| {
            let reach = plan.world.net().reach(pair.nodes.0, pair.nodes.1, true);
            let millis = |nanos: Option<u64>| nanos.map(|nanos| nanos / 1_000_000);
            json!([
                pair.nodes.0,
                pair.nodes.1,
                millis(pair.first),
                millis(pair.direct),
                seconds(pair.relayed(plan.world.now())),
                reach > Reach::Never
            ])
        })
        .collect();
    let everyone: Vec<u32> = (0..scenario.nodes() as u32).collect();
    let troubles: Vec<Value> =
        plan.troubles(&everyone).into_iter().take(2_000).map(|(at, text)| json!([seconds(at), text])).collect();
    json!({
        "end": seconds(end), "interval": seconds(interval), "nodes": nodes, "links": links, "away": away,
        "pairs": pairs, "troubles": troubles, "left_out": seen.cut, "text": report.to_string(),
    })
}
