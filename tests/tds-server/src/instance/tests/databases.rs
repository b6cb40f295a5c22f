//! CREATE, ATTACH, DROP, detach, OFFLINE and ONLINE of swapped files, files and options.

use super::World;
use crate::instance::DatabaseState;
use crate::instance::pages::{PAGE_BYTES, checksum};
use crate::reply::Value;

fn create(world: &mut World, name: &str, folder: &str) {
    std::fs::create_dir_all(world.path(folder)).unwrap();
    let (data, log) =
        (world.file(&format!("{folder}/{name}.mdf")), world.file(&format!("{folder}/{name}.ldf")));
    world.run(&format!(
        "CREATE DATABASE [{name}] ON PRIMARY (NAME = N'{name}', FILENAME = N'{data}') \
         LOG ON (NAME = N'{name}_log', FILENAME = N'{log}', SIZE = 1MB)"
    ));
}

#[test]
fn a_database_has_real_files_with_sound_pages() {
    let mut world = World::new();
    create(&mut world, "a", "mount/db");
    let bytes = std::fs::read(world.path("mount/db/a.mdf")).unwrap();
    assert_eq!(bytes.len(), 64 * PAGE_BYTES);
    let mut written = 0;
    for page in bytes.chunks(PAGE_BYTES).filter(|page| page.iter().any(|byte| *byte != 0)) {
        assert_eq!(page[60..64], checksum(page).to_le_bytes());
        assert_eq!(u16::from_le_bytes([page[4], page[5]]) & 0x200, 0x200);
        written += 1;
    }
    assert!(written >= 2);
    let answer = world.run("SELECT name, state_desc FROM sys.databases WHERE database_id > 4");
    assert_eq!(answer.rows, [[Value::NVarChar("a".into()), Value::NVarChar("ONLINE".into())]]);
    world.run("DROP DATABASE a");
    assert!(!world.path("mount/db/a.mdf").exists());
}

#[test]
fn create_refuses_as_the_server_does() {
    let mut world = World::new();
    world.run("CREATE DATABASE a");
    world.refuse("CREATE DATABASE A", &[1801]);
    let inside = world.file("data/a.mdf");
    world.refuse(&format!("CREATE DATABASE b ON (NAME=b, FILENAME='{inside}')"), &[5170, 1802]);
    assert!(world.path("data/a.mdf").exists(), "another database's file stays");
    let missing = world.file("none/b.mdf");
    world.refuse(&format!("CREATE DATABASE b ON (NAME=b, FILENAME='{missing}')"), &[5133, 1802]);
    world.refuse("CREATE DATABASE b ON (NAME=b, FILENAME='/tmp/b.mdf', SIZE=8KB)", &[1803]);
    let path = world.file("b.mdf");
    let twice =
        format!("CREATE DATABASE b ON (NAME=b, FILENAME='{path}') LOG ON (NAME=B, FILENAME='{path}l')");
    world.refuse(&twice, &[1828]);
    world.refuse("DROP DATABASE b", &[3701]);
    world.run("DROP DATABASE IF EXISTS b");
    world.refuse("DROP DATABASE master", &[3708]);
    world.refuse("USE a; DROP DATABASE a", &[3702]);
}

#[test]
fn detached_files_attach_elsewhere_and_keep_their_data() {
    let mut world = World::new();
    create(&mut world, "a", "one");
    world.instance.commit("a", "first", None);
    world.run("EXEC master.dbo.sp_detach_db @dbname = N'a', @skipchecks = 'true'");
    assert!(world.path("one/a.mdf").exists());
    std::fs::create_dir(world.path("two")).unwrap();
    for file in ["a.mdf", "a.ldf"] {
        std::fs::copy(world.path("one").join(file), world.path("two").join(file)).unwrap();
    }
    let (data, log) = (world.file("two/a.mdf"), world.file("two/a.ldf"));
    world.refuse("CREATE DATABASE v FOR ATTACH", &[1829]);
    world.run(&format!("CREATE DATABASE v ON (FILENAME='{data}'), (FILENAME='{log}') FOR ATTACH"));
    assert_eq!(world.rows("v"), ["first"]);
    world.refuse(&format!("CREATE DATABASE w ON (FILENAME='{data}') FOR ATTACH"), &[5120, 1802]);
    world.refuse(&format!("CREATE DATABASE w ON (FILENAME='{log}x') FOR ATTACH"), &[5120, 1813]);
    let log_first = world.file("one/a.ldf");
    world.refuse(&format!("CREATE DATABASE w ON (FILENAME='{log_first}') FOR ATTACH"), &[5171, 1813]);
    std::fs::write(world.path("noise.mdf"), vec![7; 3 * PAGE_BYTES]).unwrap();
    let noise = world.file("noise.mdf");
    world.refuse(&format!("CREATE DATABASE w ON (FILENAME='{noise}') FOR ATTACH"), &[5172, 1813]);
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let mut world = World::new();
    create(&mut world, "a", "one");
    create(&mut world, "b", "one");
    world.run("ALTER DATABASE a SET OFFLINE WITH ROLLBACK IMMEDIATE");
    std::fs::copy(world.path("one/b.ldf"), world.path("one/a.ldf")).unwrap();
    world.refuse("ALTER DATABASE a SET ONLINE", &[5173, 5181, 5069]);
    assert_eq!(world.instance.state_of("a"), Some(DatabaseState::RecoveryPending));
    std::fs::remove_file(world.path("one/a.ldf")).unwrap();
    std::fs::remove_file(world.path("one/a.mdf")).unwrap();
    world.refuse("ALTER DATABASE a SET ONLINE", &[5120, 5120, 5181, 5069]);
    world.refuse("USE a", &[945]);
}

#[test]
fn a_log_older_than_the_data_is_refused() {
    let mut world = World::new();
    create(&mut world, "a", "one");
    world.instance.commit("a", "1", None);
    let old = std::fs::read(world.path("one/a.ldf")).unwrap();
    world.instance.commit("a", "2", None);
    world.run("ALTER DATABASE a SET OFFLINE");
    std::fs::write(world.path("one/a.ldf"), old).unwrap();
    world.refuse("ALTER DATABASE a SET ONLINE", &[9003, 5181, 5069]);
}

#[test]
fn restoring_files_swapped_in_make_a_restoring_database() {
    let mut world = World::new();
    create(&mut world, "source", "one");
    world.instance.commit("source", "kept", None);
    world.run("BACKUP DATABASE source TO DISK = 'full.bak' WITH INIT");
    std::fs::create_dir(world.path("staging")).unwrap();
    let (data, log) = (world.file("staging/s.mdf"), world.file("staging/s.ldf"));
    world.run(&format!(
        "RESTORE DATABASE s FROM DISK='full.bak' WITH NORECOVERY, MOVE 'source' TO '{data}', \
         MOVE 'source_log' TO '{log}'"
    ));
    world.refuse("ALTER DATABASE s SET OFFLINE", &[5052, 5069]);
    world.refuse(
        &format!("CREATE DATABASE x ON (FILENAME='{data}'), (FILENAME='{log}') FOR ATTACH"),
        &[5120, 1802],
    );
    create(&mut world, "v", "clone");
    world.run("ALTER DATABASE v SET OFFLINE WITH ROLLBACK IMMEDIATE");
    std::fs::copy(&data, world.path("clone/v.mdf")).unwrap();
    std::fs::copy(&log, world.path("clone/v.ldf")).unwrap();
    let (copy, copy_log) = (world.file("clone/v.mdf"), world.file("clone/v.ldf"));
    world.refuse(
        &format!("CREATE DATABASE x ON (FILENAME='{copy}'), (FILENAME='{copy_log}') FOR ATTACH"),
        &[1824],
    );
    world.run("ALTER DATABASE v SET ONLINE");
    let answer = world.run(
        "SELECT d.state_desc, f.redo_start_lsn FROM sys.databases d JOIN sys.master_files AS f \
         ON f.database_id = d.database_id WHERE d.name = N'v' AND f.type = 0",
    );
    assert_eq!(answer.rows[0][0], Value::NVarChar("RESTORING".into()));
    assert!(matches!(answer.rows[0][1], Value::Numeric { precision: 25, .. }));
    world.run("RESTORE DATABASE v WITH RECOVERY");
    assert_eq!(world.rows("v"), ["kept"]);
    assert_eq!(world.instance.state_of("s"), Some(DatabaseState::Restoring));
}

#[test]
fn files_are_added_renamed_grown_and_removed() {
    let mut world = World::new();
    create(&mut world, "a", "one");
    let (second, folder) = (world.file("one/a2.ndf"), world.file("one/memory"));
    world.run(&format!("ALTER DATABASE a ADD FILE (NAME = a2, FILENAME = '{second}', SIZE = 1MB)"));
    world.run("ALTER DATABASE a ADD FILEGROUP m CONTAINS MEMORY_OPTIMIZED_DATA");
    world.run(&format!("ALTER DATABASE a ADD FILE (NAME = m1, FILENAME = '{folder}') TO FILEGROUP m"));
    assert!(world.path("one/memory").is_dir());
    let nowhere = "ALTER DATABASE a ADD FILE (NAME = m2, FILENAME = '/none/m2') TO FILEGROUP m";
    world.refuse(nowhere, &[5121, 5069]);
    let types = world.run("SELECT type_desc FROM a.sys.database_files ORDER BY file_id");
    let types: Vec<_> = types.rows.into_iter().flatten().collect();
    let expected = ["ROWS", "LOG", "ROWS", "FILESTREAM"].map(|kind| Value::NVarChar(kind.into()));
    assert_eq!(types, expected);
    let renamed = world.run("ALTER DATABASE a MODIFY FILE (NAME = a2, NEWNAME = [a two])");
    assert_eq!(renamed.infos(), [5021]);
    world.run("ALTER DATABASE a MODIFY FILE (NAME = [a two], SIZE = 2MB)");
    world.refuse("ALTER DATABASE a MODIFY FILE (NAME = [a two], SIZE = 1MB)", &[5039, 5069]);
    world.refuse("ALTER DATABASE a REMOVE FILE a", &[5020, 5069]);
    world.run("ALTER DATABASE a REMOVE FILE [a two]");
    assert!(!world.path("one/a2.ndf").exists());
    let moved = world.file("one/moved.mdf");
    world.run(&format!("ALTER DATABASE a MODIFY FILE (NAME = a, FILENAME = '{moved}')"));
    world.run("ALTER DATABASE a SET OFFLINE");
    std::fs::rename(world.path("one/a.mdf"), world.path("one/moved.mdf")).unwrap();
    world.run("ALTER DATABASE a SET ONLINE");
    world.run("DROP DATABASE a");
    assert!(!world.path("one/memory").exists());
}

#[test]
fn options_follow_the_state() {
    let mut world = World::new();
    create(&mut world, "a", "one");
    world.refuse("ALTER DATABASE none SET ONLINE", &[5011, 5069]);
    world.refuse("ALTER DATABASE master SET OFFLINE", &[5058, 5069]);
    let mut other = world.second();
    super::ask(other.as_mut(), "USE a", &[]);
    world.refuse("ALTER DATABASE a SET SINGLE_USER WITH NO_WAIT", &[5070, 5069]);
    world.refuse("ALTER DATABASE a MODIFY NAME = b", &[5030]);
    let taken = world.run("ALTER DATABASE a SET SINGLE_USER WITH ROLLBACK IMMEDIATE");
    assert_eq!(taken.infos(), [5060, 5060]);
    assert_eq!(super::ask(other.as_mut(), "SELECT 1", &[]).errors(), [596]);
    world.run("ALTER DATABASE a SET MULTI_USER");
    world.run("ALTER DATABASE a MODIFY NAME = b");
    world.run("ALTER DATABASE b SET READ_ONLY WITH NO_WAIT");
    world.refuse("USE b; INSERT INTO dbo.transactions (name) VALUES ('x')", &[3906]);
    world.run("USE master; ALTER DATABASE b SET READ_WRITE");
    world.run("ALTER DATABASE b SET RECOVERY SIMPLE");
    let model = world.run("SELECT recovery_model_desc FROM sys.databases WHERE name = 'b'");
    assert_eq!(model.text(), "SIMPLE");
    world.run("ALTER DATABASE b SET OFFLINE");
    world.refuse("USE b", &[942]);
    world.run("DROP DATABASE b");
    assert!(world.path("one/a.mdf").exists(), "an offline database's files stay");
}

#[test]
fn a_crash_keeps_what_was_committed() {
    let mut world = World::new();
    create(&mut world, "a", "one");
    world.instance.commit("a", "kept", None);
    world.run("BEGIN TRAN");
    world.run("USE a; INSERT INTO dbo.transactions VALUES ('open')");
    world.instance.crash();
    world.refuse("SELECT 1", &[596]);
    assert_eq!(world.rows("a"), ["kept"]);
    assert_eq!(world.instance.state_of("a"), Some(DatabaseState::Online));
    let mut after = super::login(&world.instance, "sa", "sa").unwrap();
    world.refuse("SELECT 1", &[596]);
    assert!(super::ask(after.as_mut(), "SELECT 1", &[]).errors().is_empty());
    world.instance.stop();
    assert_eq!(super::login(&world.instance, "sa", "sa").err().map(|error| error.number), Some(17187));
    std::fs::remove_file(world.path("one/a.mdf")).unwrap();
    world.instance.start();
    assert_eq!(world.instance.state_of("a"), Some(DatabaseState::RecoveryPending));
}
