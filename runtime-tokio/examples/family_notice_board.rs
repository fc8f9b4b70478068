//! A notice board for the family: what one pins to it, all others see, also those who were away meanwhile.
//!
//! ```sh
//! cargo run --example family_notice_board BOARD            # on two machines of one home network: they find each other
//! cargo run --example family_notice_board BOARD MULTIADDR  # elsewhere: the address that the other one prints
//! ```
//!
//! BOARD is the folder in which the board is kept: each member of the family has its own copy of all notices, so nobody
//! needs to be there when somebody looks at it. Each line that is typed is a notice. The usual settings apply
//! (`KINFOLK_LISTEN`, `KINFOLK_MDNS` …).

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program in a terminal")]

use std::{collections::BTreeMap, error::Error, path::PathBuf, process::ExitCode};

use futures::StreamExt;
use kinfolk::{
    Event, Fed, NoBehaviour, Node, Running,
    config::{Settings, Sources, peer_address},
    core::{LogHead, LogId, Service},
    plain_text, short_name,
};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> ExitCode {
    match board().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn board() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("say in which folder the board is to be kept")?);
    let settings = Settings::load(&Sources::of_process())?;
    let node = Node::builder()
        .settings(&settings)
        .data_dir(folder)
        .network("family-notice-board")
        // A real family would pin its members, on each machine, and show the board to nobody else.
        .configure(|config| config.sync.with = Service::Anyone)
        .start()
        .await?;
    let mut events = node.events();
    for address in arguments {
        node.connect(peer_address(&address)?).await?;
    }

    let mut shown = BTreeMap::new();
    let mut grown = node.log().grown();
    for head in node.log().heads() {
        show(&node, &mut shown, head).await?;
    }
    let mut typed = lines();
    loop {
        tokio::select! {
            line = typed.recv() => match line {
                Some(line) => drop(node.put(line).await?),
                None => break,
            },
            Some(news) = grown.next() => match news {
                Fed::Item(head) => show(&node, &mut shown, head).await?,
                // So many at once that some news was lost. The notices were not.
                Fed::Lost(_) => for head in node.log().heads() {
                    show(&node, &mut shown, head).await?;
                },
            },
            Some(Fed::Item(told)) = events.next() => tell(&node, &told.notice),
        }
    }
    node.shutdown().await;
    Ok(())
}

/// Prints what is new in somebody's log.
async fn show(
    node: &Running<NoBehaviour>,
    shown: &mut BTreeMap<LogId, u64>,
    LogHead { log, head }: LogHead,
) -> Result<(), Box<dyn Error>> {
    let up_to = shown.entry(log).or_default();
    while *up_to < head.position {
        let entries = node.log().entries(log, *up_to, 100).await?;
        let Some(last) = entries.last() else { break };
        *up_to = last.position;
        for entry in &entries {
            println!("{}: {}", short_name(&log.author), plain_text(&String::from_utf8_lossy(&entry.data)));
        }
    }
    Ok(())
}

/// What is typed, line by line, until its end. Terminals block, so they get a thread of their own.
fn lines() -> mpsc::Receiver<String> {
    let (sender, typed) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    typed
}

/// Prints the address to give to others, and how far they are.
fn tell(node: &Running<NoBehaviour>, event: &Event) {
    if let Event::Listening { address } = event {
        println!("* you are at {address}/p2p/{}", node.peer_id());
    } else if let Event::PeerSynced { peer, .. } = event {
        println!("* {} has the same notices", short_name(peer));
    }
}
