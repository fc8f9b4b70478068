//! A chat for the family: what one types, all others see.
//!
//! ```sh
//! cargo run --example family_chat            # on two machines of one home network: they find each other
//! cargo run --example family_chat MULTIADDR  # elsewhere: the address that the other one prints
//! ```
//!
//! The chat is an ordinary libp2p behaviour (request-response over `/family-chat/1`); Kinfolk runs beside it, finds the
//! others and keeps them connected. The usual settings apply (`KINFOLK_LISTEN`, `KINFOLK_MDNS` …), but nothing is
//! written to disk: each start is somebody new.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program in a terminal")]

use std::{error::Error, process::ExitCode};

use futures::StreamExt;
use kinfolk::{
    Event, Fed, Node, Running,
    config::{Settings, Sources, peer_address},
    libp2p::{
        PeerId, StreamProtocol,
        request_response::{self, Message, ProtocolSupport, cbor},
    },
    peer_to_core, peer_to_libp2p, plain_text, short_name,
};
use tokio::sync::mpsc;

/// Requests are lines of text; the answer says no more than that the line arrived.
type Chat = cbor::Behaviour<String, ()>;

/// Longer lines are cut.
const LONGEST: usize = 1_000;

#[tokio::main]
async fn main() -> ExitCode {
    match chat().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn chat() -> Result<(), Box<dyn Error>> {
    let settings = Settings::load(&Sources::of_process())?;
    let protocol = (StreamProtocol::new("/family-chat/1"), ProtocolSupport::Full);
    let mut node = Node::builder()
        .settings(&settings)
        .ephemeral()
        .network("family-chat")
        .behaviour(Chat::new([protocol], request_response::Config::default()))
        .start()
        .await?;
    let mut events = node.events();
    for address in std::env::args().skip(1) {
        node.connect(peer_address(&address)?).await?;
    }

    let mut typed = lines();
    loop {
        tokio::select! {
            line = typed.recv() => match line {
                Some(line) => send(&node, line).await?,
                None => break,
            },
            Some(Fed::Item(event)) = node.next_app_event() => receive(&node, event).await?,
            Some(Fed::Item(told)) = events.next() => tell(&node, &told.notice),
        }
    }
    node.shutdown().await;
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

/// Sends a line to everybody who is here.
async fn send(node: &Running<Chat>, line: String) -> Result<(), Box<dyn Error>> {
    let peers = node.peers().await?;
    let here = peers.iter().filter(|peer| peer.path.is_some());
    let here: Vec<PeerId> = here.map(|peer| peer_to_libp2p(&peer.peer)).collect();
    let line: String = line.chars().take(LONGEST).collect();
    node.with_behaviour(move |chat| {
        for peer in here {
            chat.send_request(&peer, line.clone());
        }
    })
    .await?;
    Ok(())
}

/// Prints a line of somebody else, and says that it arrived.
async fn receive(node: &Running<Chat>, event: request_response::Event<String, ()>) -> Result<(), Box<dyn Error>> {
    if let request_response::Event::Message { peer, message: Message::Request { request, channel, .. }, .. } = event {
        let line: String = request.chars().take(LONGEST).collect();
        println!("{}: {}", short_name(&peer_to_core(peer)), plain_text(&line));
        // It fails only when the other one has left meanwhile.
        node.with_behaviour(move |chat| chat.send_response(channel, ()).is_ok()).await?;
    }
    Ok(())
}

/// Prints who comes and goes, and the address to give to others.
fn tell(node: &Running<Chat>, event: &Event) {
    if let Event::Listening { address } = event {
        println!("* you are at {address}/p2p/{}", node.peer_id());
    } else if let Event::PeerConnected { peer, path, .. } = event {
        println!("* {} is here, {path}", short_name(peer));
    } else if let Event::PeerDisconnected { peer, cause } = event {
        println!("* {} has left: {cause}", short_name(peer));
    }
}
