//! Generated histories of two databases that are restored from each other and go different ways, against a model that
//! knows a database as the path of all that ever happened to it.

use proptest::prelude::*;

use super::World;
use crate::instance::DatabaseState;

#[derive(Clone, Copy, Debug)]
enum Step {
    Commit(usize),
    Full(usize),
    Log(usize),
    /// Which database, from which backup.
    Restore(usize, usize),
    Apply(usize, usize),
    Recover(usize),
}

/// Something that happened: the number of a row, or of a record that is none.
type Event = (usize, bool);

#[derive(Clone, Debug, Default)]
struct Model {
    exists: bool,
    online: bool,
    path: Vec<Event>,
    logged: Option<usize>,
}

#[derive(Clone, Debug)]
struct Taken {
    log: bool,
    from: usize,
    path: Vec<Event>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = 0..2_usize;
    let step = prop_oneof![
        4 => which.clone().prop_map(Step::Commit),
        1 => Just(Step::Full(0)),
        3 => which.clone().prop_map(Step::Log),
        2 => (0..100_usize).prop_map(|pick| Step::Restore(1, pick)),
        5 => (which.clone(), 0..100_usize).prop_map(|(which, pick)| Step::Apply(which, pick)),
        2 => which.prop_map(Step::Recover),
    ];
    proptest::collection::vec(step, 10..90)
}

struct Run {
    world: World,
    models: [Model; 2],
    taken: Vec<Taken>,
    events: usize,
}

impl Run {
    fn event(&mut self, which: usize, row: bool) {
        self.models[which].path.push((self.events, row));
        self.events += 1;
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Commit(which) if self.models[which].online => {
                prop_assert!(self.world.instance.commit(name(which), &self.events.to_string(), None));
                self.event(which, true);
            }
            Step::Full(which) if self.models[which].online => {
                let start = self.models[which].path.len();
                let file = self.taken.len();
                self.world.run(&format!("BACKUP DATABASE {} TO DISK='{file}'", name(which)));
                self.event(which, false);
                let path = self.models[which].path.clone();
                self.taken.push(Taken { log: false, from: start, path });
                self.event(which, false);
                let model = &mut self.models[which];
                model.logged = model.logged.or(Some(start));
            }
            Step::Log(which) if self.models[which].online && self.models[which].logged.is_some() => {
                let file = self.taken.len();
                self.world.run(&format!("BACKUP LOG {} TO DISK='{file}'", name(which)));
                let model = &mut self.models[which];
                let from = model.logged.unwrap();
                model.logged = Some(model.path.len());
                self.taken.push(Taken { log: true, from, path: model.path.clone() });
            }
            Step::Restore(which, pick) => {
                if let Some(file) = self.pick(false, pick) {
                    self.restore(which, file);
                }
            }
            Step::Apply(which, pick) => {
                if let Some(file) = self.pick(true, pick) {
                    self.apply(which, file)?;
                }
            }
            Step::Recover(which) if self.models[which].exists && !self.models[which].online => {
                self.world.run(&format!("RESTORE DATABASE {} WITH RECOVERY", name(which)));
                let place = self.models[which].path.len();
                self.event(which, false);
                let model = &mut self.models[which];
                (model.online, model.logged) = (true, Some(place));
            }
            _ => {}
        }
        Ok(())
    }

    /// One of the logs or fulls.
    fn pick(&self, log: bool, pick: usize) -> Option<usize> {
        let files: Vec<usize> = (0..self.taken.len()).filter(|file| self.taken[*file].log == log).collect();
        if files.is_empty() { None } else { Some(files[pick % files.len()]) }
    }

    fn restore(&mut self, which: usize, file: usize) {
        let (data, log) =
            (self.world.file(&format!("{which}.mdf")), self.world.file(&format!("{which}.ldf")));
        self.world.run(&format!(
            "RESTORE DATABASE {} FROM DISK='{file}' WITH NORECOVERY, REPLACE, MOVE 'a' TO '{data}', MOVE 'a_log' TO '{log}'",
            name(which)
        ));
        let path = self.taken[file].path.clone();
        self.models[which] = Model { exists: true, online: false, path, logged: None };
    }

    /// A log fits a path that it begins with, if it begins no later and goes further or nowhere.
    fn apply(&mut self, which: usize, file: usize) -> Result<(), TestCaseError> {
        let (taken, model) = (&self.taken[file], &self.models[which]);
        let at = model.path.len();
        let follows = taken.path.len() >= at && taken.path[..at] == model.path[..] && taken.from <= at;
        let further = taken.path.len() > at || taken.from == at;
        let fits = model.exists && !model.online && follows && further;
        let answer =
            self.world.ask(&format!("RESTORE LOG {} FROM DISK='{file}' WITH NORECOVERY", name(which)));
        let errors = answer.errors();
        prop_assert_eq!(
            errors.is_empty(),
            fits,
            "{} of {:?} on {:?}: {:?}",
            file,
            taken,
            model,
            answer.messages
        );
        if fits {
            self.models[which].path = taken.path.clone();
        } else {
            prop_assert!([3117, 3118, 4305, 4326, 4330].contains(&errors[0]), "{:?}", errors);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (which, model) in self.models.iter().enumerate().filter(|(_, model)| model.exists) {
            let rows = model.path.iter().filter(|(_, row)| *row).map(|(event, _)| event.to_string());
            prop_assert_eq!(self.world.rows(name(which)), rows.collect::<Vec<_>>());
            let state = if model.online { DatabaseState::Online } else { DatabaseState::Restoring };
            prop_assert_eq!(self.world.instance.state_of(name(which)), Some(state));
        }
        Ok(())
    }
}

fn name(which: usize) -> &'static str {
    ["a", "b"][which]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn only_logs_of_the_same_path_fit(steps in steps()) {
        let mut world = World::new();
        world.run("CREATE DATABASE a");
        let source = Model { exists: true, online: true, ..Model::default() };
        let mut run = Run { world, models: [source, Model::default()], taken: Vec::new(), events: 0 };
        for step in [Step::Full(0)].into_iter().chain(steps) {
            run.step(step)?;
            run.check()?;
        }
        run.world.instance.crash();
        run.check()?;
    }
}
