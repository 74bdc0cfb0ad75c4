//! The screen of `serinus status --watch`: what was heard last, how old it is, and which part of it is seen.

use std::ops::ControlFlow;
use std::time::{Duration, Instant, SystemTime};

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use crate::admin::wire::RouteList;
use crate::model::Timestamp;

use super::live_lines::{Kind, Past, lines};
use super::text::plain;

/// How old what is shown may be before that is said.
const SLOW: Duration = Duration::from_secs(5);

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Leave,
    Up,
    Down,
    PageUp,
    PageDown,
    Top,
    Bottom,
    /// Nothing.
    Other,
}

/// What a pressed key asks for.
#[allow(clippy::wildcard_enum_match_arm, reason = "a key that is new to crossterm asks for nothing")]
pub(super) fn key(pressed: KeyEvent) -> Key {
    let control = pressed.modifiers.contains(KeyModifiers::CONTROL);
    match pressed.code {
        KeyCode::Char('c') if control => Key::Leave,
        KeyCode::Char(_) if control => Key::Other,
        KeyCode::Char('q') | KeyCode::Esc => Key::Leave,
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown | KeyCode::Char(' ') => Key::PageDown,
        KeyCode::Home | KeyCode::Char('g') => Key::Top,
        KeyCode::End | KeyCode::Char('G') => Key::Bottom,
        _ => Key::Other,
    }
}

/// What is shown.
pub(super) struct Screen {
    admin: String,
    /// One route alone was asked for: each of its endpoints is shown.
    single: bool,
    list: RouteList,
    heard: Option<Instant>,
    /// The clock when that was heard.
    clock: String,
    /// Why nothing has been heard since, in a line.
    trouble: Option<String>,
    past: Past,
    /// The text of what was heard, for a width.
    text: (u16, Vec<(Kind, String)>),
    /// The first line that is seen.
    top: usize,
    /// How many can be.
    page: usize,
}

impl Screen {
    /// Of the router at this address.
    pub(super) fn new(admin: String, single: bool) -> Self {
        let list =
            RouteList { generation: 0, problems: Vec::new(), replicas: Vec::new(), routes: Vec::new() };
        Self {
            admin,
            single,
            list,
            heard: None,
            clock: String::new(),
            trouble: None,
            past: Past::default(),
            text: (0, Vec::new()),
            top: 0,
            page: 1,
        }
    }

    /// The router has said this.
    pub(super) fn heard(&mut self, list: RouteList, now: Instant) {
        self.past.take_in(&list, now);
        (self.list, self.heard, self.trouble) = (list, Some(now), None);
        let clock = Timestamp::from(SystemTime::now()).to_string();
        self.clock = clock.get(11..19).map(|time| format!("{time}Z")).unwrap_or_default();
        self.text = (0, Vec::new());
    }

    /// The router has said nothing, for this reason.
    pub(super) fn heard_nothing(&mut self, why: &str) {
        self.trouble = Some(plain(why.lines().next().unwrap_or_default()));
    }

    /// Does what a key asks for; a break is the end.
    pub(super) fn press(&mut self, key: Key) -> ControlFlow<()> {
        let most = self.text.1.len().saturating_sub(self.page);
        // A line is seen on both pages, so that nobody loses his place.
        let page = self.page.saturating_sub(1).max(1);
        self.top = match key {
            Key::Leave => return ControlFlow::Break(()),
            Key::Up => self.top.saturating_sub(1),
            Key::Down => self.top + 1,
            Key::PageUp => self.top.saturating_sub(page),
            Key::PageDown => self.top + page,
            Key::Top => 0,
            Key::Bottom => most,
            Key::Other => self.top,
        }
        .min(most);
        ControlFlow::Continue(())
    }

    /// Draws it.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, now: Instant) {
        let [head, trouble, body, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        if self.text.0 != body.width || self.text.1.is_empty() {
            self.text = (body.width, lines(&self.list, &self.past, self.single, body.width.into()));
        }
        self.page = usize::from(body.height).max(1);
        self.top = self.top.min(self.text.1.len().saturating_sub(self.page));
        frame.render_widget(self.head(), head);
        let said = self.said(now);
        let stale = said.is_some();
        if let Some(said) = said {
            let loud = Style::new().fg(Color::Yellow).add_modifier(Modifier::REVERSED);
            frame.render_widget(Line::styled(said, loud), trouble);
        }
        let seen = self.text.1.iter().skip(self.top).take(self.page);
        let seen: Vec<Line<'_>> =
            seen.map(|(kind, line)| Line::styled(line.as_str(), style(*kind, stale))).collect();
        frame.render_widget(Paragraph::new(seen), body);
        frame.render_widget(self.foot(), foot);
    }

    fn head(&self) -> Line<'static> {
        let problems: usize = self.list.problems.len()
            + self.list.routes.iter().map(|route| route.problems.len()).sum::<usize>();
        let routes = self.list.routes.len();
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let mut head = vec![
            Span::styled(format!("Serinus at {}", plain(&self.admin)), bold),
            Span::raw(format!("   {routes} {}", if routes == 1 { "route" } else { "routes" })),
        ];
        if problems > 0 {
            let text = format!("   {problems} {}", if problems == 1 { "problem" } else { "problems" });
            head.push(Span::styled(text, Style::new().fg(Color::Red)));
        }
        head.push(Span::raw(format!("   {}", self.clock)));
        Line::from(head)
    }

    /// That what is shown is old.
    fn said(&self, now: Instant) -> Option<String> {
        let age = now.saturating_duration_since(self.heard?);
        let why = match &self.trouble {
            Some(why) => why.as_str(),
            None if age > SLOW => "The router has not answered yet.",
            None => return None,
        };
        let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
        Some(format!("Old: these values are from {age} ago, and it is asked again. {why}"))
    }

    fn foot(&self) -> Line<'static> {
        let dim = Style::new().add_modifier(Modifier::DIM);
        let (all, last) = (self.text.1.len(), (self.top + self.page).min(self.text.1.len()));
        let place = if all > self.page {
            format!("   lines {} to {last} of {all}: arrows, PgUp, PgDn, Home, End", self.top + 1)
        } else {
            String::new()
        };
        Line::styled(format!("q leaves{place}"), dim)
    }
}

/// How a line looks. What is old is pale.
fn style(kind: Kind, stale: bool) -> Style {
    let style = match kind {
        Kind::Head => Style::new().add_modifier(Modifier::BOLD),
        Kind::Text => Style::new(),
        Kind::Rollout => Style::new().fg(Color::Cyan),
        Kind::Problem => Style::new().fg(Color::Red),
        Kind::Remedy => Style::new().fg(Color::Yellow),
    };
    if stale { style.add_modifier(Modifier::DIM) } else { style }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
