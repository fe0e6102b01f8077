//! What a client's terminal modes mean to this system's terminals: the list of RFC 4254 section 8, as OpenSSH's sshd
//! reads it (`ttymodes.h`). What Linux does not have is passed over.

use munjigi_core::terminal_modes::TerminalModes;
use nix::sys::termios::{
    BaudRate, ControlFlags, InputFlags, LocalFlags, OutputFlags, Termios, cfsetispeed, cfsetospeed,
};

/// The character that no key is.
const DISABLED: libc::cc_t = 0;
/// What stands for it in SSH.
const NO_KEY: u32 = 255;
/// Speeds of input and output, bits per second.
const INPUT_SPEED: u8 = 128;
const OUTPUT_SPEED: u8 = 129;

/// Keys, by their numbers in SSH.
const KEYS: &[(u8, usize)] = &[
    (1, libc::VINTR),
    (2, libc::VQUIT),
    (3, libc::VERASE),
    (4, libc::VKILL),
    (5, libc::VEOF),
    (6, libc::VEOL),
    (7, libc::VEOL2),
    (8, libc::VSTART),
    (9, libc::VSTOP),
    (10, libc::VSUSP),
    (12, libc::VREPRINT),
    (13, libc::VWERASE),
    (14, libc::VLNEXT),
    (16, libc::VSWTC),
    (18, libc::VDISCARD),
];

const INPUT: &[(u8, libc::tcflag_t)] = &[
    (30, libc::IGNPAR),
    (31, libc::PARMRK),
    (32, libc::INPCK),
    (33, libc::ISTRIP),
    (34, libc::INLCR),
    (35, libc::IGNCR),
    (36, libc::ICRNL),
    (37, libc::IUCLC),
    (38, libc::IXON),
    (39, libc::IXANY),
    (40, libc::IXOFF),
    (41, libc::IMAXBEL),
    (42, libc::IUTF8),
];

const LOCAL: &[(u8, libc::tcflag_t)] = &[
    (50, libc::ISIG),
    (51, libc::ICANON),
    (52, libc::XCASE),
    (53, libc::ECHO),
    (54, libc::ECHOE),
    (55, libc::ECHOK),
    (56, libc::ECHONL),
    (57, libc::NOFLSH),
    (58, libc::TOSTOP),
    (59, libc::IEXTEN),
    (60, libc::ECHOCTL),
    (61, libc::ECHOKE),
    (62, libc::PENDIN),
];

const OUTPUT: &[(u8, libc::tcflag_t)] = &[
    (70, libc::OPOST),
    (71, libc::OLCUC),
    (72, libc::ONLCR),
    (73, libc::OCRNL),
    (74, libc::ONOCR),
    (75, libc::ONLRET),
];

const CONTROL: &[(u8, libc::tcflag_t)] = &[(90, libc::CS7), (91, libc::CS8), (92, libc::PARENB), (93, libc::PARODD)];

const SPEEDS: &[(u32, BaudRate)] = &[
    (50, BaudRate::B50),
    (75, BaudRate::B75),
    (110, BaudRate::B110),
    (134, BaudRate::B134),
    (150, BaudRate::B150),
    (200, BaudRate::B200),
    (300, BaudRate::B300),
    (600, BaudRate::B600),
    (1200, BaudRate::B1200),
    (1800, BaudRate::B1800),
    (2400, BaudRate::B2400),
    (4800, BaudRate::B4800),
    (9600, BaudRate::B9600),
    (19_200, BaudRate::B19200),
    (38_400, BaudRate::B38400),
    (57_600, BaudRate::B57600),
    (115_200, BaudRate::B115200),
    (230_400, BaudRate::B230400),
    (460_800, BaudRate::B460800),
    (500_000, BaudRate::B500000),
    (576_000, BaudRate::B576000),
    (921_600, BaudRate::B921600),
    (1_000_000, BaudRate::B1000000),
    (1_152_000, BaudRate::B1152000),
    (1_500_000, BaudRate::B1500000),
    (2_000_000, BaudRate::B2000000),
    (2_500_000, BaudRate::B2500000),
    (3_000_000, BaudRate::B3000000),
    (3_500_000, BaudRate::B3500000),
    (4_000_000, BaudRate::B4000000),
];

/// Changes a terminal's settings to what the client has.
pub(super) fn apply(modes: &TerminalModes, terminal: &mut Termios) {
    for (mode, argument) in modes.iter() {
        let (mut input, mut output) = (terminal.input_flags.bits(), terminal.output_flags.bits());
        let (mut local, mut control) = (terminal.local_flags.bits(), terminal.control_flags.bits());
        switch(INPUT, mode, argument, &mut input);
        switch(OUTPUT, mode, argument, &mut output);
        switch(LOCAL, mode, argument, &mut local);
        switch(CONTROL, mode, argument, &mut control);
        terminal.input_flags = InputFlags::from_bits_retain(input);
        terminal.output_flags = OutputFlags::from_bits_retain(output);
        terminal.local_flags = LocalFlags::from_bits_retain(local);
        terminal.control_flags = ControlFlags::from_bits_retain(control);
        if let Some(place) = of(KEYS, mode).and_then(|place| terminal.control_chars.get_mut(place)) {
            *place = if argument == NO_KEY { DISABLED } else { libc::cc_t::try_from(argument).unwrap_or(DISABLED) };
        }
        let speed = |wanted: u8| of(SPEEDS, argument).filter(|_| mode == wanted);
        // One that no terminal has leaves what is there; it says nothing of a terminal without a wire anyway.
        if let Some(speed) = speed(INPUT_SPEED) {
            let _ = cfsetispeed(terminal, speed);
        }
        if let Some(speed) = speed(OUTPUT_SPEED) {
            let _ = cfsetospeed(terminal, speed);
        }
    }
}

fn switch(table: &[(u8, libc::tcflag_t)], mode: u8, argument: u32, flags: &mut libc::tcflag_t) {
    let bits = of(table, mode).unwrap_or(0);
    *flags = if argument == 0 { *flags & !bits } else { *flags | bits };
}

fn of<K: PartialEq, V: Copy>(table: &[(K, V)], key: K) -> Option<V> {
    table.iter().find(|(known, _)| *known == key).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use nix::pty::openpty;
    use nix::sys::termios::{SpecialCharacterIndices as Key, cfgetospeed, tcgetattr};

    use super::*;

    fn applied(modes: &[(u8, u32)]) -> Termios {
        let pair = openpty(None, None).unwrap();
        let mut terminal = tcgetattr(&pair.slave).unwrap();
        apply(&TerminalModes::new(modes.iter().copied()), &mut terminal);
        terminal
    }

    #[test]
    fn each_mode_changes_what_it_names_and_nothing_else() {
        let plain = applied(&[]);
        let terminal = applied(&[(3, 35), (5, NO_KEY), (53, 0), (42, 1), (72, 0), (129, 9600), (17, 9), (159, 1)]);
        assert_eq!(terminal.control_chars[Key::VERASE as usize], b'#');
        assert_eq!(terminal.control_chars[Key::VEOF as usize], DISABLED);
        assert_eq!(terminal.control_chars[Key::VINTR as usize], plain.control_chars[Key::VINTR as usize]);
        assert_eq!(terminal.local_flags, plain.local_flags - LocalFlags::ECHO);
        assert_eq!(terminal.input_flags, plain.input_flags | InputFlags::IUTF8);
        assert_eq!(terminal.output_flags, plain.output_flags - OutputFlags::ONLCR);
        assert_eq!(cfgetospeed(&terminal), BaudRate::B9600);
        // The last of equal ones counts; a key beyond a byte is none.
        let terminal = applied(&[(53, 0), (53, 1), (1, 70_000), (129, 7)]);
        assert!(terminal.local_flags.contains(LocalFlags::ECHO));
        assert_eq!(terminal.control_chars[Key::VINTR as usize], DISABLED);
        assert_eq!(cfgetospeed(&terminal), cfgetospeed(&plain));
    }
}
