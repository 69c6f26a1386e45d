//! Plays inputs again, to see which lines they reach: `replay TARGET FOLDER…`.

use std::{fs, process::ExitCode};

use gateway_fuzz::{eio3_payload, eio4_payload, socketio_packet, websocket_frames};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let check = match args.next().as_deref() {
        Some("eio3_payload") => eio3_payload::check,
        Some("eio4_payload") => eio4_payload::check,
        Some("socketio_packet") => socketio_packet::check,
        Some("websocket_frames") => websocket_frames::check,
        _ => {
            eprintln!("replay: there is no such target");
            return ExitCode::FAILURE;
        }
    };
    let mut played = 0;
    for folder in args {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
        for entry in entries {
            let path = entry.expect("the folder can be read").path();
            check(&fs::read(&path).expect("the input can be read"));
            played += 1;
        }
    }
    println!("{played} inputs played");
    ExitCode::SUCCESS
}
