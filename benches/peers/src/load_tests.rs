//! Tests of the clients.

use super::*;

#[test]
fn percentiles_are_those_of_the_nearest_rank() {
    let sorted: Vec<f64> = (1..=1000).map(f64::from).collect();
    assert_eq!(per_mille(&sorted, 500), 500.0);
    assert_eq!(per_mille(&sorted, 990), 990.0);
    assert_eq!(per_mille(&sorted, 999), 999.0);
    assert_eq!(per_mille(&sorted, 1000), 1000.0);
    assert!(per_mille(&[], 500).is_nan());
}

#[test]
fn a_stall_is_paid_for_by_all_that_were_due_meanwhile() {
    use std::net::TcpListener;
    // One connection, a pause of 200 ms before the first answer: at 100 a second, about 20 more were due.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut buffer = [0; 4096];
        std::thread::sleep(Duration::from_millis(200));
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            for _ in 0..read / 18 {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").expect("it takes it");
            }
        }
    });
    let work = Work {
        address,
        connections: 1,
        request: b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        answer: Answer::Body(1),
    };
    let mut clients = Clients::connect(work).expect("connected");
    let (latencies, seen) =
        clients.open_loop(100.0, Duration::ZERO, Duration::from_millis(400)).expect("measured");
    drop(clients);
    server.join().expect("served");
    assert_eq!((seen.requests, seen.failures), (40, 0));
    let late = latencies.iter().filter(|latency| **latency > 50_000.0).count();
    assert!(late >= 15, "{late} of {latencies:?}");
}
