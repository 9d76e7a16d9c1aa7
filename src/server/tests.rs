//! Start and end of a broker in its steps: what fails leaves nothing behind, and what has ended is
//! over.

mod places;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::broker::Security;
use crate::config::{Limits, ListenerConfig};
use crate::data_dir::{DataDir, DataDirError};
use crate::protocol::QoS;
use crate::storage::simulated::{SimulatedFiles, StepKind};

const DEADLINE: Duration = Duration::from_secs(20);

fn config(directory: Option<&Path>, address: SocketAddr) -> Config {
    Config {
        listeners: vec![ListenerConfig::tcp(address)],
        data_dir: directory.map(Path::to_owned),
        sys_interval: None,
        ..Config::default()
    }
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

async fn stores(broker: &Broker) {
    broker.publish("t", b"x", QoS::AtLeastOnce, true).expect("it runs");
    within(broker.stored()).await.expect("it runs");
}

/// CONNECT of a 3.1.1 client with clean start 0, or what the system says.
fn connects(address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(b"\x10\x0d\0\x04MQTT\x04\0\0\0\0\x01a")?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack)?;
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_in_a_backlog_while_the_log_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut prepared =
        Prepared::new(config(Some(directory.path()), any_port()), Extensions::default()).expect("a port");
    let address = prepared.local_addrs()[0];
    let refused = || TcpStream::connect(address).expect_err("nobody listens").kind();
    assert_eq!(refused(), ErrorKind::ConnectionRefused);
    assert!(!directory.path().join("lock").exists(), "the directory is touched before the port is ours");
    let core = prepared.open().await.expect("a log");
    assert_eq!(refused(), ErrorKind::ConnectionRefused);
    let broker = prepared.serve(core).await.expect("it listens");
    assert_eq!(broker.local_addrs(), [address]);
    drop(connects(address).expect("it is served"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_found_before_the_directory_is_touched() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("data");
    let other = TcpListener::bind(any_port()).expect("a port");
    let taken = other.local_addr().expect("it has one");
    let error = Broker::start(config(Some(&path), taken)).await.err().expect("the port is taken");
    assert!(matches!(error, StartError::Listen { address, .. } if address == taken), "{error}");
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_failed_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let other = TcpListener::bind(any_port()).expect("a port");
    let taken = other.local_addr().expect("it has one");
    // No pause between them, and the log has something to record at each start.
    for _ in 0..20 {
        assert!(Broker::start(config(Some(directory.path()), taken)).await.is_err());
        // The other one comes while the log is read.
        let mut prepared =
            Prepared::new(config(Some(directory.path()), any_port()), Extensions::default()).expect("a port");
        let address = prepared.local_addrs()[0];
        let core = prepared.open().await.expect("a log");
        let other = TcpListener::bind(address).expect("nobody listens there yet");
        let error = prepared.serve(core).await.err().expect("the port is taken");
        assert!(matches!(error, StartError::Listen { .. }), "{error}");
        drop(other);
    }
    let broker = Broker::start(config(Some(directory.path()), any_port())).await.expect("a broker");
    stores(&broker).await;
    let storage = broker.metrics().storage.expect("it is on disk");
    assert_eq!((storage.failing, storage.write_failures), (0, 0));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_broker_is_gone() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut address = any_port();
    for n in 0..20 {
        // The same port and directory, at once.
        let broker = Broker::start(config(Some(directory.path()), address)).await.expect("a broker");
        address = broker.local_addrs()[0];
        let mut client = tokio::task::block_in_place(|| connects(address)).expect("it is served");
        let traffic = tokio::task::spawn_blocking(move || {
            let publish = b"\x32\x08\0\x01t\0\x01abc";
            while client.write_all(publish).is_ok() && client.read_exact(&mut [0; 4]).is_ok() {}
        });
        let mut subscription = broker.subscribe("#", QoS::AtLeastOnce).expect("it runs");
        assert!(within(subscription.recv()).await.is_some());
        stores(&broker).await;
        if n % 3 == 0 {
            broker.shutdown().await;
        }
        drop(broker);
        DataDir::open(directory.path()).expect("free");
        drop(TcpListener::bind(address).expect("free"));
        within(traffic).await.expect("its connection is closed");
        while within(subscription.recv()).await.is_some() {}
    }
}

#[test]
fn a_broker_can_be_dropped_where_no_runtime_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let start = || Broker::start(config(Some(directory.path()), any_port()));
    let first = runtime();
    drop(first.block_on(start()).expect("a broker"));
    let broker = first.block_on(start()).expect("a broker");
    drop(first);
    drop(broker);
    drop(runtime().block_on(start()).expect("a broker"));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_shutdown_every_call_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    for directory in [Some(directory.path()), None] {
        let config = config(directory, any_port());
        let broker = Broker::start(config.clone()).await.expect("a broker");
        stores(&broker).await;
        broker.shutdown().await;
        assert_eq!(broker.publish("t", b"x", QoS::AtLeastOnce, false), Err(PublishError::Closed(Closed)));
        assert_eq!(within(broker.stored()).await, Err(Closed));
        assert_eq!(broker.subscribe("t", QoS::AtMostOnce).err(), Some(SubscribeError::Closed(Closed)));
        assert_eq!(broker.reload(&config), Err(Closed));
        assert_eq!(within(broker.ended()).await, Ended::ShutDown);
        // The directory is free although the broker is still there.
        if let Some(directory) = directory {
            DataDir::open(directory).expect("free");
        }
        within(broker.shutdown()).await;
    }
}

/// A broker on a disk in memory.
async fn on_simulated(files: &SimulatedFiles) -> Broker {
    let prepared = Prepared::new(config(None, any_port()), Extensions::default()).expect("a port");
    let limits = Limits { shutdown_timeout: Duration::from_millis(100), ..Limits::default() };
    let storage = Config::default().storage;
    let core = Core::open_on(Arc::new(files.clone()), &storage, limits, Security::default()).expect("a log");
    prepared.serve(core).await.expect("it listens")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_the_disk_at_the_shutdown_is_told() {
    let files = SimulatedFiles::new(1);
    let broker = Arc::new(on_simulated(&files).await);
    stores(&broker).await;
    files.on_step(|step| (step.kind == StepKind::Write).then_some(crate::storage::simulated::Fault::Broken));
    broker.publish("t", b"y", QoS::AtLeastOnce, true).expect("it runs");
    let waiting = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move { broker.stored().await }
    });
    while broker.metrics().storage.expect("it is on disk").failing == 0 {
        tokio::task::yield_now().await;
    }
    within(broker.shutdown()).await;
    assert_eq!(within(waiting).await.expect("no panic"), Err(Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_storage_thread_ends_the_broker() {
    let files = SimulatedFiles::new(1);
    let broker = on_simulated(&files).await;
    stores(&broker).await;
    let address = broker.local_addrs()[0];
    let mut client = tokio::task::block_in_place(|| connects(address)).expect("it is served");
    files.on_step(|step| if step.kind == StepKind::Write { panic!("a fault of the writer") } else { None });
    broker.publish("t", b"y", QoS::AtLeastOnce, true).expect("it runs");
    assert_eq!(within(broker.stored()).await, Err(Closed));
    assert_eq!(within(broker.ended()).await, Ended::StorageFault);
    assert_eq!(broker.publish("t", b"z", QoS::AtLeastOnce, false), Err(PublishError::Closed(Closed)));
    within(broker.shutdown()).await;
    let end = tokio::task::block_in_place(|| client.read_to_end(&mut Vec::new()));
    assert!(end.is_ok() || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    assert!(TcpStream::connect(address).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_a_later_version_is_left_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let broker = Broker::start(config(Some(directory.path()), any_port())).await.expect("a broker");
    stores(&broker).await;
    broker.shutdown().await;
    let files = || {
        let entries =
            std::fs::read_dir(directory.path()).expect("a list").map(|entry| entry.expect("one").path());
        let mut files: Vec<_> =
            entries.filter(|path| !path.ends_with("lock") && !path.ends_with("reserve")).collect();
        files.sort();
        files.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("a file"))).collect::<Vec<_>>()
    };
    let (path, mut bytes) = files().remove(0);
    bytes[8] = 2;
    let check = crc32fast::hash(&bytes[..28]);
    bytes[28..32].copy_from_slice(&check.to_le_bytes());
    std::fs::write(&path, bytes).expect("written");
    let before = files();
    let error = Broker::start(config(Some(directory.path()), any_port())).await.err().expect("refused");
    assert!(matches!(error, StartError::DataDir(DataDirError::LaterFormat { .. })), "{error}");
    assert!(error.is_final() && error.to_string().contains(path.to_str().expect("UTF-8")), "{error}");
    assert!(files() == before);
}
