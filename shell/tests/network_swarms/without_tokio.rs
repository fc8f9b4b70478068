use std::{pin::Pin, rc::Rc, time::Duration};

use futures::{FutureExt, StreamExt, channel::mpsc};
use futures_timer::Delay;
use kinfolk_core::{Action, Address, Command, CommandId, Event, Reason};
use kinfolk_shell::{driver::Happened, network::Network};
use libp2p::{
    Transport,
    core::{transport::MemoryTransport, upgrade::Version},
    identity::Keypair,
    noise,
    swarm::dummy,
    yamux,
};

use crate::harness::settings;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A network whose tasks run on smol's executor for one thread.
fn network(executor: &Rc<smol::LocalExecutor<'static>>) -> Network<dummy::Behaviour> {
    // That executor can't be sent to where the tasks come from, but the tasks can be sent to it.
    let (to, mut tasks) = mpsc::unbounded::<Task>();
    let runner = executor.clone();
    executor
        .spawn(async move {
            while let Some(task) = tasks.next().await {
                runner.spawn(task).detach();
            }
        })
        .detach();
    let key = Keypair::generate_ed25519();
    let transport = MemoryTransport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let spawn = move |task: Task| to.unbounded_send(task).unwrap();
    Network::with_transport(key, settings(), spawn, transport, dummy::Behaviour).unwrap()
}

fn run(network: &mut Network<dummy::Behaviour>, action: Action) {
    network.execute(&Command { id: CommandId(1), action, reason: Reason::Routine });
}

async fn next(network: &mut Network<dummy::Behaviour>) -> Event {
    match network.next().await.unwrap() {
        Happened::Core(event) => event,
        Happened::App(never) => match never {},
    }
}

async fn listening(network: &mut Network<dummy::Behaviour>) -> Address {
    run(network, Action::Listen { address: "/memory/0".parse().unwrap() });
    match next(network).await {
        Event::Listening { address, .. } => address,
        other => panic!("{other:?}"),
    }
}

#[test]
fn on_one_thread_of_smol() {
    let executor = Rc::new(smol::LocalExecutor::new());
    let (mut a, mut b) = (network(&executor), network(&executor));
    let meet = async {
        let address = listening(&mut b).await;
        run(&mut a, Action::Dial { peer: Some(b.local()), addresses: vec![address] });
        let (mut pinged, mut identified) = (false, false);
        while !(pinged && identified) {
            futures::select! {
                event = next(&mut a).fuse() => {
                    pinged |= matches!(event, Event::Pinged { result: Ok(_), .. });
                    identified |= matches!(event, Event::Identified { .. });
                }
                _ = next(&mut b).fuse() => {}
            }
        }
    };
    let patience = Delay::new(Duration::from_secs(60));
    let met = smol::block_on(executor.run(futures::future::select(Box::pin(meet), patience)));
    assert!(matches!(met, futures::future::Either::Left(_)), "they never met");
}

#[test]
fn a_network_can_be_moved_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Network<dummy::Behaviour>>();
}
