use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
};

use super::*;
use crate::{
    hub::frame::Frame,
    identity::{Identity, SessionId, UserId},
    limits::{Admission, Bounds},
    outbox::{Letter, Outbox},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(45);

/// Who accepts: keeps each connection, and notes what clients say.
#[derive(Default)]
struct House {
    connections: Mutex<Vec<Connection>>,
    said: Mutex<Vec<String>>,
    is_full: Mutex<bool>,
}

struct Ear {
    namespace: Box<str>,
    house: Arc<House>,
}

impl Ear {
    fn note(&self, text: String, attachments: &[Bytes]) -> Result<(), Full> {
        let text = format!("{} {text} {attachments:?}", self.namespace);
        self.house.said.lock().unwrap().push(text);
        if *self.house.is_full.lock().unwrap() { Err(Full) } else { Ok(()) }
    }
}

impl Inbox for Ear {
    fn event(&self, event: Inbound) -> Result<(), Full> {
        let Inbound { name, args, attachments, call } = event;
        self.note(format!("{name}{args} {call:?}"), &attachments)
    }

    fn answer(&self, call: u64, args: String, attachments: Vec<Bytes>) -> Result<(), Full> {
        self.note(format!("answer {call} {args}"), &attachments)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.house.said.lock().unwrap().push(format!("{} left", self.namespace));
    }
}

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A client, and the house that it comes to.
struct Stage {
    socket: SocketIo,
    house: Arc<House>,
    bell: Arc<Bell>,
}

impl Stage {
    fn new(protocol: Protocol, is_known: bool, namespaces: &[&str]) -> Self {
        let house = Arc::new(House::default());
        let accepts = house.clone();
        let accept: Accept = Arc::new(move |connection| {
            let ear = Ear { namespace: connection.namespace.clone(), house: accepts.clone() };
            accepts.connections.lock().unwrap().push(connection);
            Box::new(ear)
        });
        let settings = Settings {
            accept,
            namespaces: Box::new([]),
            max_message_bytes: 1_000,
            outbox_bytes: 10_000,
            connect_timeout: CONNECT_TIMEOUT,
        };
        let settings = Arc::new(settings.with_namespaces(namespaces));
        let session = is_known.then(|| Session {
            id: SessionId::new("s"),
            identity: Identity::new(UserId::new("ann"), Vec::new()),
        });
        let place = Admission::new(Bounds::default()).enter(None).unwrap();
        let opening = Opening { session, protocol, resume: false, place };
        Self { socket: SocketIo::new(settings, opening), house, bell: Arc::default() }
    }

    /// A client of 4.x that is in `/`.
    fn joined() -> Self {
        let mut stage = Self::new(Protocol::Eio4, true, &["/", "/chat"]);
        stage.says("0");
        assert!(stage.hears()[0].starts_with(r#"40{"sid":""#));
        stage
    }

    /// A client of 2.x, which is in `/` by itself.
    fn legacy() -> Self {
        let mut stage = Self::new(Protocol::Eio3, true, &["/", "/chat"]);
        stage.expect(&["40"]);
        stage
    }

    fn take(&mut self, text: &str) -> Result<(), Fault> {
        self.socket.take(Message::Text(text.to_owned()))
    }

    #[track_caller]
    fn says(&mut self, text: &str) {
        self.take(text).unwrap();
    }

    #[track_caller]
    fn attaches(&mut self, data: &'static [u8]) {
        self.socket.take(Message::Binary(Bytes::from_static(data))).unwrap();
    }

    #[track_caller]
    fn fails(&mut self, text: &str, label: &'static str) {
        assert_eq!(self.take(text), Err(Fault(label)), "{text}");
    }

    fn is_over(&mut self) -> bool {
        let waker = Waker::from(self.bell.clone());
        self.socket.poll_over(&mut Context::from_waker(&waker)).is_ready()
    }

    fn poll(&mut self) -> Poll<Down> {
        let waker = Waker::from(self.bell.clone());
        self.socket.poll_next(&mut Context::from_waker(&waker))
    }

    /// Tells all that goes out now.
    fn hears(&mut self) -> Vec<String> {
        let mut heard = Vec::new();
        while let Poll::Ready(down) = self.poll() {
            let is_last = matches!(down, Down::Close(_));
            heard.push(match down {
                Down::Frame(frame) => {
                    let text = frame.text(self.socket.protocol.format());
                    String::from_utf8(text.to_vec()).unwrap()
                }
                Down::Text { head, body, tail } => {
                    format!("{head}{}{tail}", std::str::from_utf8(&body).unwrap())
                }
                Down::Binary(data) => format!("{data:?}"),
                Down::Close(reason) => format!("close {:?}", reason.map(CloseReason::label)),
            });
            if is_last {
                break;
            }
        }
        heard
    }

    #[track_caller]
    fn expect(&mut self, expected: &[&str]) {
        assert_eq!(self.hears(), expected);
    }

    #[track_caller]
    fn said(&self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut *self.house.said.lock().unwrap()), expected);
    }

    fn outbox(&self, at: usize) -> Outbox {
        self.house.connections.lock().unwrap()[at].outbox.clone()
    }

    /// Lets the time come that was asked for; tells how far away it was.
    #[track_caller]
    fn wait(&mut self) -> Duration {
        let due = self.socket.deadline().expect("something is due");
        self.socket.tick(due - Duration::from_millis(1));
        assert_eq!(self.socket.deadline(), Some(due), "it was not due yet");
        self.socket.tick(due);
        let left = due.saturating_duration_since(now());
        Duration::from_secs_f64(left.as_secs_f64().round())
    }

    /// Tells `namespace auth resume` of each connection.
    fn connections(&self) -> Vec<String> {
        let connections = self.house.connections.lock().unwrap();
        connections.iter().map(|c| format!("{} {:?} {}", c.namespace, c.auth, c.resume)).collect()
    }
}

#[test]
fn an_idle_client_is_small() {
    assert!(size_of::<SocketIo>() <= 168, "{}", size_of::<SocketIo>());
    let stage = Stage::joined();
    assert!(stage.socket.rest.is_none());
    assert_eq!(stage.socket.deadline(), None);
}

#[test]
fn older_clients_are_in_the_main_namespace_at_once() {
    let mut stage = Stage::legacy();
    assert_eq!(stage.connections(), ["/ None false"]);
    assert_eq!(stage.socket.deadline(), None);
    // Some say so themselves; they are not in twice.
    stage.says("0");
    stage.expect(&[]);
    stage.says("0/chat?token=x,");
    stage.expect(&["40/chat,"]);
    stage.fails("0/chat", "joined_twice");
    let mut stage = Stage::legacy();
    stage.says("0/chat?token=x&resume=1");
    assert_eq!(stage.connections(), ["/ None false", "/chat None true"]);
}

#[test]
fn older_clients_are_refused_in_their_own_words() {
    let mut stage = Stage::legacy();
    stage.says("0/other?token=x,");
    stage.says("0/é");
    stage.expect(&[r#"44/other,"Invalid namespace""#]);
    let mut stage = Stage::new(Protocol::Eio3, false, &["/"]);
    stage.expect(&[r#"44"unauthorized""#, "41"]);
    stage.says("0/chat");
    stage.expect(&[]);
    assert_eq!(stage.wait(), LINGER);
    stage.expect(&["close None"]);
    assert!(stage.connections().is_empty());
}

#[test]
fn newer_clients_ask_for_every_namespace() {
    let mut stage = Stage::new(Protocol::Eio4, true, &["/", "/chat"]);
    stage.expect(&[]);
    stage.says(r#"0{"token":"x","resume":1}"#);
    stage.says("0/chat,");
    let answers = stage.hears();
    assert!(answers[0].starts_with(r#"40{"sid":""#) && answers[0].ends_with(r#""}"#));
    assert!(answers[1].starts_with(r#"40/chat,{"sid":""#));
    assert_eq!(answers.len(), 2);
    let expected = [r#"/ Some("{\"token\":\"x\",\"resume\":1}") true"#, "/chat None false"];
    assert_eq!(stage.connections(), expected);
    stage.says("0/other,");
    stage.says("0/chat?x=1,");
    stage.expect(&[
        r#"44/other,{"message":"Invalid namespace"}"#,
        r#"44/chat?x=1,{"message":"Invalid namespace"}"#,
    ]);
    stage.fails("0/chat,", "joined_twice");
    stage.fails("0", "joined_twice");
}

#[test]
fn newer_clients_without_a_session_are_refused_when_they_ask() {
    let mut stage = Stage::new(Protocol::Eio4, false, &["/"]);
    stage.expect(&[]);
    stage.says("0/chat,{}");
    stage.expect(&[r#"44/chat,{"message":"unauthorized"}"#, "41/chat,"]);
    stage.says("0");
    assert_eq!(stage.wait(), LINGER);
    stage.expect(&["close None"]);
}

#[test]
fn recovery_of_a_state_is_declined_by_a_new_id_without_a_pid() {
    let mut stage = Stage::new(Protocol::Eio4, true, &["/"]);
    stage.says(r#"0{"pid":"abc","offset":"def"}"#);
    let answers = stage.hears();
    assert!(answers[0].starts_with(r#"40{"sid":""#) && !answers[0].contains("pid"));
    stage.outbox(0).offer(&Frame::event("told", "1")).unwrap();
    stage.expect(&[r#"42["told",1]"#]);
}

#[test]
fn a_client_that_joins_nothing_in_time_is_closed() {
    let mut stage = Stage::new(Protocol::Eio4, true, &["/"]);
    stage.says("0/other");
    assert_eq!(stage.hears().len(), 1);
    assert_eq!(stage.wait(), CONNECT_TIMEOUT);
    stage.expect(&["close None"]);
}

#[test]
fn what_does_not_belong_here_is_a_fault() {
    let mut stage = Stage::new(Protocol::Eio4, true, &["/"]);
    for text in [r#"2["x"]"#, "31[]", r#"51-["x",1]"#, "1", r#"2/chat,["x"]"#] {
        stage.fails(text, "not_joined");
    }
    stage.fails("nonsense", "socketio_type");
    stage.fails("2{", "json");
    stage.fails("4\"x\"", "error_from_client");
    let binary = Message::Binary(Bytes::new());
    assert_eq!(stage.socket.take(binary.clone()), Err(Fault("attachment_unasked")));
    let mut stage = Stage::legacy();
    stage.says(r#"2/chat,["x"]"#);
    stage.says("1/chat,");
    stage.says(r#"51-/chat,["x",{"_placeholder":true,"num":0}]"#);
    stage.attaches(b"x");
    assert_eq!(stage.socket.take(binary), Err(Fault("attachment_unasked")));
    stage.said(&[]);
}

#[test]
fn more_answers_than_may_wait_are_a_fault() {
    let mut stage = Stage::joined();
    for _ in 0..ANSWERS {
        stage.says("0/other");
    }
    stage.fails("0/other", "too_many_connects");
    assert_eq!(stage.hears().len(), ANSWERS);
    stage.says("0/other");
}

#[test]
fn events_come_in_order_with_their_numbers() {
    let mut stage = Stage::legacy();
    stage.says("0/chat");
    stage.says(r#"2["add",{"a":1}]"#);
    stage.says(r#"2/chat,7["é"]"#);
    stage.says(r#"20["add"]"#);
    stage.said(&[r#"/ add[{"a":1}] None []"#, "/chat é[] Some(7) []", "/ add[] Some(0) []"]);
}

#[test]
fn attachments_are_put_to_their_event() {
    let mut stage = Stage::joined();
    let data = r#"["put",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    stage.says(&format!("52-3{data}"));
    stage.attaches(b"one");
    stage.said(&[]);
    assert_eq!(stage.socket.deadline().map(|_| ()), Some(()));
    stage.attaches(b"");
    let args = &data[r#"["put","#.len()..];
    stage.said(&[&format!("/ put[{args} Some(3) [b\"one\", b\"\"]")]);
    assert_eq!(stage.socket.deadline(), None);
    assert!(stage.socket.rest.as_ref().is_none_or(|rest| rest.assembly.is_none()));
    stage.says(r#"50-["none"]"#);
    stage.said(&["/ none[] None []"]);
    stage.says(&format!("52-3{data}"));
    stage.attaches(b"one");
    stage.fails("2[\"x\"]", "attachment_missing");
}

#[test]
fn a_missing_attachment_is_waited_for_so_long() {
    let mut stage = Stage::joined();
    stage.says(r#"51-["x",{"_placeholder":true,"num":0}]"#);
    assert_eq!(stage.wait(), ATTACHMENTS);
    stage.expect(&["close None"]);
}

#[test]
fn too_much_closes_a_client() {
    let mut stage = Stage::joined();
    stage.says(&format!(r#"2["{}"]"#, "x".repeat(1_000)));
    stage.said(&[]);
    stage.expect(&["close Some(\"too_much\")"]);

    let mut stage = Stage::joined();
    stage.says(r#"52-["x"]"#);
    stage.attaches(&[0; 600]);
    stage.attaches(&[0; 600]);
    stage.said(&[]);
    stage.expect(&["close Some(\"too_much\")"]);

    let mut stage = Stage::joined();
    *stage.house.is_full.lock().unwrap() = true;
    stage.says(r#"2["x"]"#);
    stage.expect(&["close Some(\"too_much\")"]);

    let mut stage = Stage::new(Protocol::Eio4, true, &["/"]);
    stage.says(&format!(r#"0{{"token":"{}"}}"#, "x".repeat(1_000)));
    stage.expect(&["close Some(\"too_much\")"]);
    assert!(stage.connections().is_empty());
}

#[test]
fn events_and_answers_go_out_as_their_namespace_has_them() {
    for (mut stage, text) in [(Stage::joined(), "é"), (Stage::legacy(), "\\u00e9")] {
        stage.says("0/chat");
        assert_eq!(stage.hears().len(), 1);
        for at in 0..2 {
            let event = Frame::event("told", r#"{"a":"é"}"#);
            stage.outbox(at).offer(&event).unwrap();
            stage.outbox(at).ack(7, event).unwrap();
        }
        stage.expect(&[
            &format!(r#"42["told",{{"a":"{text}"}}]"#),
            &format!(r#"437[{{"a":"{text}"}}]"#),
            &format!(r#"42/chat,["told",{{"a":"{text}"}}]"#),
            &format!(r#"43/chat,7[{{"a":"{text}"}}]"#),
        ]);
    }
}

#[test]
fn letters_carry_attachments_right_behind_their_heads() {
    let mut stage = Stage::legacy();
    let place = r#"{"_placeholder":true,"num":0}"#;
    let letter = |answers, args: &str, attachments: &[&'static [u8]], call| Letter {
        answers,
        args: args.to_owned(),
        attachments: attachments.iter().map(|data| Bytes::from_static(data)).collect(),
        call,
    };
    let outbox = stage.outbox(0);
    outbox.letter(letter(None, &format!(r#"["é",{place}]"#), &[b"\x01"], None)).unwrap();
    outbox.letter(letter(Some(5), &format!("[{place}]"), &[b"\x02"], None)).unwrap();
    outbox.letter(letter(Some(6), "[]", &[], None)).unwrap();
    outbox.letter(letter(None, r#"["ask",1]"#, &[], Some(9))).unwrap();
    stage.expect(&[
        &format!(r#"451-["\u00e9",{place}]"#),
        r#"b"\x01""#,
        &format!("461-5[{place}]"),
        r#"b"\x02""#,
        "436[]",
        r#"429["ask",1]"#,
    ]);
}

#[test]
fn an_answer_is_heard_once_and_only_where_one_was_asked_for() {
    let mut stage = Stage::joined();
    stage.says("39[1]");
    let ask = |call| Letter {
        answers: None,
        args: r#"["ask"]"#.to_owned(),
        attachments: Vec::new(),
        call: Some(call),
    };
    stage.outbox(0).letter(ask(9)).unwrap();
    stage.expect(&[r#"429["ask"]"#]);
    stage.says("38[1]");
    stage.says("39[1]");
    stage.says("39[1]");
    stage.said(&["/ answer 9 [1] []"]);
    stage.outbox(0).letter(ask(10)).unwrap();
    assert_eq!(stage.hears().len(), 1);
    stage.says(r#"61-10[{"_placeholder":true,"num":0}]"#);
    stage.attaches(b"x");
    stage.said(&[r#"/ answer 10 [{"_placeholder":true,"num":0}] [b"x"]"#]);
    assert!(stage.socket.rest.is_none());
    for call in 0..1_000 {
        stage.outbox(0).letter(ask(call)).unwrap();
        assert_eq!(stage.hears().len(), 1);
    }
    let open = stage.socket.rest.as_ref().map_or(0, |rest| rest.calls.len());
    assert!(open < 1_000, "{open}");
    stage.says("30[]");
    stage.said(&[]);
    stage.says("3999[]");
    stage.said(&["/ answer 999 [] []"]);
}

#[test]
fn a_client_that_leaves_may_come_back_within_a_second() {
    for (mut stage, answers) in [(Stage::joined(), 1), (Stage::legacy(), 1)] {
        stage.says("1");
        stage.said(&["/ left"]);
        assert!(stage.outbox(0).offer(&Frame::event("x", "1")).is_err());
        stage.says("0");
        assert_eq!(stage.hears().len(), answers);
        assert_eq!(stage.socket.deadline(), None);
        assert_eq!(stage.connections().len(), 2);
        stage.says("1");
        assert_eq!(stage.wait(), LINGER);
        stage.expect(&["close None"]);
    }
}

#[test]
fn a_client_that_leaves_one_of_two_namespaces_stays() {
    let mut stage = Stage::joined();
    stage.says("0/chat");
    stage.says("1");
    stage.said(&["/ left"]);
    assert_eq!(stage.socket.deadline(), None);
    stage.says("1/chat,");
    stage.said(&["/chat left"]);
    assert_eq!(stage.wait(), LINGER);
}

#[test]
fn a_client_that_shall_not_come_back_is_told_so_first() {
    let mut stage = Stage::joined();
    stage.outbox(0).close(CloseReason::AskedFinally);
    assert_eq!(stage.hears(), ["41"]);
    stage.said(&["/ left"]);
    stage.says(r#"2["late"]"#);
    assert_eq!(stage.wait(), LINGER);
    stage.expect(&["close Some(\"asked_finally\")"]);
    let mut stage = Stage::joined();
    stage.says("0/chat");
    assert_eq!(stage.hears().len(), 1);
    stage.outbox(1).close(CloseReason::AskedFinally);
    assert_eq!(stage.hears(), ["41/chat,"]);
    for reason in [CloseReason::Draining, CloseReason::SessionEnded, CloseReason::Asked] {
        let mut stage = Stage::legacy();
        stage.outbox(0).close(reason);
        stage.expect(&[&format!("close Some({:?})", reason.label())]);
    }
}

#[test]
fn whoever_waits_is_woken_by_what_comes() {
    let mut stage = Stage::joined();
    assert!(stage.poll().is_pending());
    stage.outbox(0).offer(&Frame::event("x", "1")).unwrap();
    assert_eq!(stage.bell.0.load(Ordering::Relaxed), 1);
    stage.expect(&[r#"42["x",1]"#]);
}

#[test]
fn a_slow_client_is_over_when_there_is_another_reason() {
    let mut stage = Stage::joined();
    let snapshot = Frame::snapshot("initial", format!("\"{}\"", "x".repeat(3_000)));
    stage.outbox(0).offer(&snapshot).unwrap();
    assert_eq!(stage.hears().len(), 1);
    for _ in 0..100 {
        let event = Frame::event("x", format!("\"{}\"", "x".repeat(1_000)));
        let _ = stage.outbox(0).offer(&event);
    }
    stage.expect(&["close Some(\"slow\")"]);
    assert!(!stage.is_over());
    stage.socket.let_go(snapshot.snapshot_bytes());
    let woken = stage.bell.0.load(Ordering::Relaxed);
    stage.outbox(0).close(CloseReason::Draining);
    assert!(stage.is_over());
    assert_eq!(stage.bell.0.load(Ordering::Relaxed), woken + 1);
}

#[test]
fn snapshots_of_a_mailbox_that_is_no_more_are_not_let_go_from_the_next() {
    let mut stage = Stage::joined();
    let snapshot = Frame::snapshot("initial", "\"xxx\"");
    let bytes = snapshot.snapshot_bytes();
    stage.outbox(0).offer(&snapshot).unwrap();
    assert_eq!(stage.hears().len(), 1);
    stage.says("1");
    stage.says("0");
    stage.outbox(1).offer(&snapshot).unwrap();
    assert_eq!(stage.hears().len(), 2);
    stage.socket.let_go(bytes);
    assert_eq!(stage.socket.on_way, bytes);
    stage.socket.let_go(bytes);
    assert_eq!(stage.socket.on_way, 0);
    assert!(stage.socket.rest.is_none());
}

#[test]
fn a_close_from_below_is_known_to_whoever_sends() {
    let mut stage = Stage::joined();
    stage.socket.close(CloseReason::Stalled);
    assert_eq!(stage.outbox(0).closed(), Some(CloseReason::Stalled));
    let mut stage = Stage::new(Protocol::Eio4, true, &["/"]);
    stage.socket.close(CloseReason::Draining);
    stage.expect(&["close Some(\"draining\")"]);
    assert!(stage.is_over());
}
