//! SQL Server's messages: number, class, state and text, and how a chain of them is put together.
//!
//! `%s` stands for the arguments in order. Texts are those of `sys.messages` (SQL Server 2022) as Microsoft documents
//! them, save those in `super`'s list of what could not be checked. Class 10 is sent as class 0, as the server does.

use std::fmt::Display;

use crate::reply::Message;

/// What a statement came to when it did not succeed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stop {
    /// The ERROR tokens, the cause first.
    Errors(Vec<Message>),
    /// The client cancelled or is gone.
    Cancelled,
}

/// What a statement or a part of one comes to.
pub(crate) type Outcome<T> = Result<T, Stop>;

/// Number, class, state, text.
type Entry = (i32, u8, u8, &'static str);

#[rustfmt::skip]
const TEXTS: &[Entry] = &[
    (102, 15, 1, "Incorrect syntax near '%s'."),
    (105, 15, 1, "Unclosed quotation mark after the character string '%s'."),
    (113, 15, 1, "Missing end comment mark '*/'."),
    (134, 15, 1, "The variable name '%s' has already been declared. Variable names must be unique within a query batch or stored procedure."),
    (137, 15, 2, "Must declare the scalar variable \"%s\"."),
    (148, 15, 1, "Incorrect time syntax in time string '%s' used with WAITFOR."),
    (155, 15, 1, "'%s' is not a recognized %s option."),
    (156, 15, 1, "Incorrect syntax near the keyword '%s'."),
    (174, 15, 1, "The %s function requires %s argument(s)."),
    (195, 15, 10, "'%s' is not a recognized built-in function name."),
    (207, 16, 1, "Invalid column name '%s'."),
    (208, 16, 1, "Invalid object name '%s'."),
    (209, 16, 1, "Ambiguous column name '%s'."),
    (213, 16, 1, "Column name or number of supplied values does not match table definition."),
    (229, 14, 5, "The %s permission was denied on the object '%s', database '%s', schema '%s'."),
    (220, 16, 2, "Arithmetic overflow error for data type %s, value = %s."),
    (241, 16, 1, "Conversion failed when converting date and/or time from character string."),
    (245, 16, 1, "Conversion failed when converting the %s value '%s' to data type %s."),
    (262, 14, 1, "%s permission denied in database '%s'."),
    (297, 16, 1, "The user does not have permission to perform this action."),
    (300, 14, 1, "%s permission was denied on object '%s', database '%s'."),
    (402, 16, 1, "The data types %s and %s are incompatible in the %s operator."),
    (596, 21, 1, "Cannot continue the execution because the session is in the kill state."),
    (911, 16, 1, "Database '%s' does not exist. Make sure that the name is entered correctly."),
    (916, 14, 2, "The server principal \"%s\" is not able to access the database \"%s\" under the current security context."),
    (922, 14, 1, "Database '%s' is being recovered. Waiting until recovery is finished."),
    (924, 14, 1, "Database '%s' is already open and can only have one user at a time."),
    (926, 14, 1, "Database '%s' cannot be opened. It has been marked SUSPECT by recovery. See the SQL Server errorlog for more information."),
    (927, 14, 2, "Database '%s' cannot be opened. It is in the middle of a restore."),
    (942, 14, 4, "Database '%s' cannot be opened because it is offline."),
    (945, 16, 2, "Database '%s' cannot be opened due to inaccessible files or insufficient memory or disk space. See the SQL Server errorlog for details."),
    (948, 20, 1, "The database '%s' cannot be opened because it is version %s. This server supports version %s and earlier. A downgrade path is not supported."),
    (1105, 17, 2, "Could not allocate space for object '%s' in database '%s' because the '%s' filegroup is full. Create disk space by deleting unneeded files, dropping objects in the filegroup, adding additional files to the filegroup, or setting autogrowth on for existing files in the filegroup."),
    (1801, 16, 3, "Database '%s' already exists. Choose a different database name."),
    (1802, 16, 4, "CREATE DATABASE failed. Some file names listed could not be created. Check related errors."),
    (1803, 17, 1, "The CREATE DATABASE statement failed. The primary file must be at least %s MB to accommodate a copy of the model database."),
    (1813, 16, 2, "Could not open new database '%s'. CREATE DATABASE is aborted."),
    (1824, 16, 1, "Cannot attach a database that was being restored."),
    (1828, 16, 4, "The logical file name \"%s\" is already in use. Choose a different name."),
    (1829, 16, 1, "The FOR ATTACH option requires that at least the primary file be specified."),
    (1834, 16, 1, "The file '%s' cannot be overwritten. It is being used by database '%s'."),
    (2528, 10, 1, "DBCC execution completed. If DBCC printed error messages, contact your system administrator."),
    (2536, 10, 1, "DBCC results for '%s'."),
    (3009, 16, 1, "Could not insert a backup or restore history/detail record in the msdb database. This may indicate a problem with the msdb database. The backup/restore operation was still successful."),
    (3013, 16, 1, "%s is terminating abnormally."),
    (3014, 10, 1, "%s successfully processed %s pages in %s seconds (%s MB/sec)."),
    (3021, 16, 0, "Cannot perform a backup or restore operation within a transaction."),
    (3023, 16, 2, "Backup, file manipulation operations (such as ALTER DATABASE ADD FILE) and encryption changes on a database must be serialized. Reissue the statement after the current backup or file manipulation operation is completed."),
    (3024, 16, 0, "You can only perform a full backup of the master database. Use BACKUP DATABASE to back up the entire master database."),
    (3031, 16, 1, "Option '%s' conflicts with option(s) '%s'. Remove the conflicting option and reissue the statement."),
    (3033, 16, 0, "BACKUP DATABASE cannot be used on a database opened in emergency mode."),
    (3035, 16, 1, "Cannot perform a differential backup for database \"%s\", because a current database backup does not exist. Perform a full database backup by reissuing BACKUP DATABASE, omitting the WITH DIFFERENTIAL option."),
    (3036, 16, 3, "The database \"%s\" is in warm-standby state (set by executing RESTORE WITH STANDBY) and cannot be backed up until the entire restore sequence is completed."),
    (3059, 16, 1, "This BACKUP or RESTORE command is not supported on a database mirror or secondary replica."),
    (3081, 16, 1, "%s '%s' was previously suspended for snapshot backup."),
    (3082, 16, 1, "%s '%s' is not suspended for snapshot backup."),
    (3083, 10, 1, "Database '%s' acquired suspend locks in session %s."),
    (3084, 10, 1, "Database '%s' released suspend locks in session %s."),
    (3086, 10, 1, "%s '%s' successfully suspended for snapshot backup in session %s."),
    (3087, 10, 1, "%s '%s' originally suspended for snapshot backup in session %s successfully resumed in session %s."),
    (3090, 16, 1, "%s '%s' snapshot backup in progress."),
    (3091, 16, 1, "Database '%s' is not allowed to be suspended for snapshot backup."),
    (3092, 16, 1, "Database '%s' is specified multiple times in the group snapshot backup statement."),
    (3094, 16, 1, "Server '%s' has no user databases to suspend for snapshot backup."),
    (3098, 16, 2, "The backup cannot be performed because '%s' was requested after the media was formatted with an incompatible structure. To append to this media set, either omit '%s' or specify '%s'. Alternatively, you can create a new media set by using WITH FORMAT in your BACKUP statement. If you use WITH FORMAT on an existing media set, all its backup sets will be overwritten."),
    (3101, 16, 1, "Exclusive access could not be obtained because the database is in use."),
    (3102, 16, 1, "%s cannot process database '%s' because it is in use by this session. It is recommended that the master database be used when performing this operation."),
    (3104, 16, 1, "RESTORE cannot operate on database '%s' because it is configured for database mirroring or has joined an availability group. If you intend to restore the database, use ALTER DATABASE to remove mirroring or to remove the database from its availability group."),
    (3110, 14, 1, "User does not have permission to RESTORE database '%s'."),
    (3117, 16, 1, "The log or differential backup cannot be restored because no files are ready to rollforward."),
    (3118, 16, 1, "The database \"%s\" does not exist. RESTORE can only create a database when restoring either a full backup or a file backup of the primary file."),
    (3119, 16, 1, "Problems were identified while planning for the RESTORE statement. Previous messages provide details."),
    (3120, 16, 1, "This backup set will not be restored because all data has already been restored to a point beyond the time covered by this backup set."),
    (3121, 16, 1, "The file \"%s\" is on a recovery path that is inconsistent with application of this backup set. RESTORE cannot continue."),
    (3132, 16, 1, "The media set has %s media families but only %s are provided. All members must be provided."),
    (3135, 16, 1, "The backup set in file '%s' was created by %s and cannot be used for this restore operation."),
    (3136, 16, 1, "This differential backup cannot be restored because the database has not been restored to the correct earlier state."),
    (3141, 16, 0, "The database to be restored was named '%s'. Reissue the statement using the WITH REPLACE option to overwrite the '%s' database."),
    (3142, 16, 1, "File \"%s\" cannot be restored over the existing \"%s\". Reissue the RESTORE statement using WITH REPLACE to overwrite pre-existing files, or WITH MOVE to identify an alternate location."),
    (3145, 16, 1, "The STOPAT option is not supported for databases that use the SIMPLE recovery model."),
    (3147, 16, 1, "Backup and restore operations are not allowed on database tempdb."),
    (3153, 16, 2, "The database is already fully recovered."),
    (3154, 16, 4, "The backup set holds a backup of a database other than the existing '%s' database."),
    (3156, 16, 3, "File '%s' cannot be restored to '%s'. Use WITH MOVE to identify a valid location for the file."),
    (3159, 16, 1, "The tail of the log for the database \"%s\" has not been backed up. Use BACKUP LOG WITH NORECOVERY to backup the log if it contains work you do not want to lose. Use the WITH REPLACE or WITH STOPAT clause of the RESTORE statement to just overwrite the contents of the log."),
    (3169, 16, 1, "The database was backed up on a server running database version %s. That version is incompatible with this server, which supports version %s. Either restore the database on a server that supports the backup, or use a backup that is compatible with this server."),
    (3170, 16, 1, "The STANDBY filename is invalid."),
    (3180, 16, 1, "This backup cannot be restored using WITH STANDBY because a database upgrade is needed. Reissue the RESTORE without WITH STANDBY."),
    (3183, 16, 1, "RESTORE detected an error on page (%s:%s) in database \"%s\" as read from the backup set."),
    (3185, 16, 1, "RESTORE cannot apply this backup set because the database is suspect. Restore a backup set that repairs the damage."),
    (3187, 16, 1, "RESTORE WITH CHECKSUM cannot be specified because the backup set does not contain checksum information."),
    (3189, 16, 1, "Damage to the backup set was detected."),
    (3197, 10, 1, "I/O is frozen on database %s. No user action is required. However, if I/O is not resumed promptly, you could cancel the backup."),
    (3198, 10, 1, "I/O was resumed on database %s. No user action is required."),
    (3176, 16, 1, "File '%s' is claimed by '%s'(%s) and '%s'(%s). The WITH MOVE clause can be used to relocate one or more files."),
    (3201, 16, 2, "Cannot open backup device '%s'. Operating system error %s."),
    (3202, 16, 1, "Write on \"%s\" failed: %s"),
    (3203, 16, 1, "Read on \"%s\" failed: %s"),
    (3204, 16, 1, "The backup or restore was aborted."),
    (3205, 16, 2, "Too many backup devices specified for backup or restore; only %s are allowed."),
    (3211, 10, 1, "%s percent processed."),
    (3227, 16, 1, "The backup media on \"%s\" is part of media family %s which has already been processed on \"%s\". Ensure that backup devices are correctly specified. For tape devices, ensure that the correct volumes are loaded."),
    (3231, 16, 1, "The media loaded on \"%s\" is formatted to support %s media families, but %s media families are expected according to the backup device specification."),
    (3234, 16, 2, "Logical file '%s' is not part of database '%s'. Use RESTORE FILELISTONLY to list the logical file names."),
    (3241, 16, 0, "The media family on device '%s' is incorrectly formed. SQL Server cannot process this media family."),
    (3250, 16, 1, "The value '%s' is not within range for the %s parameter."),
    (3258, 16, 1, "The volume on the device \"%s\" is not part of the media set that is currently being processed. Ensure that the backup devices are loaded with the correct media."),
    (3262, 10, 1, "The backup set on file %s is valid."),
    (3634, 16, 1, "The operating system returned the error '%s' while attempting '%s' on '%s'."),
    (3701, 11, 1, "Cannot drop the database '%s', because it does not exist or you do not have permission."),
    (3702, 16, 3, "Cannot drop database \"%s\" because it is currently in use."),
    (3703, 16, 2, "Cannot detach the database '%s' because it is currently in use."),
    (3707, 16, 2, "Cannot detach a suspect or recovery pending database. It must be repaired or dropped."),
    (3708, 16, 1, "Cannot drop the database '%s' because it is a system database."),
    (3752, 16, 1, "The database '%s' is currently joined to an availability group.  Before you can drop the database, you need to remove it from the availability group."),
    (3902, 16, 1, "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION."),
    (3903, 16, 1, "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION."),
    (3906, 16, 1, "Failed to update database \"%s\" because the database is read-only."),
    (4035, 10, 1, "Processed %s pages for database '%s', file '%s' on file %s."),
    (4038, 16, 1, "Cannot find file ID %s on device '%s'."),
    (4060, 11, 1, "Cannot open database \"%s\" requested by the login. The login failed."),
    (4208, 16, 1, "The statement %s is not allowed while the recovery model is SIMPLE. Use BACKUP DATABASE or change the recovery model using ALTER DATABASE."),
    (4212, 16, 1, "Cannot back up the log of the master database. Use BACKUP DATABASE instead."),
    (4214, 16, 1, "BACKUP LOG cannot be performed because there is no current database backup."),
    (4305, 16, 1, "The log in this backup set begins at LSN %s, which is too recent to apply to the database. An earlier log backup that includes LSN %s can be restored."),
    (4319, 16, 1, "A previous restore operation was interrupted and did not complete processing on file '%s'. Either restore the backup set that was interrupted or restart the restore sequence."),
    (4320, 16, 3, "The file \"%s\" was not fully restored by a database or file restore. The entire file must be successfully restored before applying this backup set."),
    (4322, 10, 1, "This backup set contains records that were logged before the designated point in time. The database is being left in the restoring state so that more roll forward can be performed."),
    (4326, 16, 1, "The log in this backup set terminates at LSN %s, which is too early to apply to the database. A more recent log backup that includes LSN %s can be restored."),
    (4327, 16, 1, "The log in this backup set contains bulk-logged changes. Point-in-time recovery was inhibited. The database has been rolled forward to the end of the log."),
    (4329, 10, 1, "This log file contains records logged before the designated mark. The database is being left in the Restoring state so you can apply another log file."),
    (4330, 16, 1, "This backup set cannot be applied because it is on a recovery path that is inconsistent with the database. The recovery path is the sequence of data and log backups that have brought the database to a particular recovery point. Find a compatible backup to restore, or restore the rest of the database to match a recovery point within this backup set, which will restore the database to a different point in time.  For more information about recovery paths, see SQL Server Books Online."),
    (4333, 16, 1, "The database cannot be recovered because the log was not restored."),
    (4334, 16, 1, "The named mark does not identify a valid LSN."),
    (4335, 16, 1, "The specified STOPAT time is too early. All or part of the database is already rolled forward beyond that point."),
    (4338, 16, 1, "The STOPAT clause specifies a point too early to allow this backup set to be restored. Choose a different stop point or use RESTORE DATABASE WITH RECOVERY to recover at the current point."),
    (4340, 16, 1, "The point-in-time clause of this RESTORE statement is restricted for use by RESTORE LOG statements only. Omit the clause or use a clause that includes a timestamp."),
    (4341, 16, 1, "This log backup contains bulk-logged changes. It cannot be used to stop at an arbitrary point in time."),
    (5004, 16, 4, "To use ALTER DATABASE, the database must be in a writable state in which a checkpoint can be executed."),
    (5011, 14, 5, "User does not have permission to alter database '%s', the database does not exist, or the database is not in a state that allows access checks."),
    (5016, 16, 1, "Cannot change the name of the system database %s."),
    (5018, 10, 1, "The file \"%s\" has been modified in the system catalog. The new path will be used the next time the database is started."),
    (5020, 16, 1, "The primary data or log file cannot be removed from a database."),
    (5021, 10, 1, "The %s name '%s' has been set."),
    (5030, 16, 2, "The database %s could not be exclusively locked to perform the operation."),
    (5035, 16, 1, "Filegroup '%s' already exists in this database. Specify a different name or remove the conflicting filegroup if it is empty."),
    (5039, 16, 1, "MODIFY FILE failed. Specified size is less than or equal to current size."),
    (5041, 16, 1, "MODIFY FILE failed. File '%s' does not exist."),
    (5044, 10, 1, "The %s '%s' has been removed."),
    (5052, 16, 1, "%s is not permitted while a database is in the %s state."),
    (5058, 16, 1, "Option '%s' cannot be set in database '%s'."),
    (5060, 10, 1, "Nonqualified transactions are being rolled back. Estimated rollback completion: %s%."),
    (5061, 16, 1, "ALTER DATABASE failed because a lock could not be placed on database '%s'. Try again later."),
    (5063, 16, 1, "Database '%s' is in warm standby. A warm-standby database is read-only."),
    (5064, 16, 1, "Changes to the state or options of database '%s' cannot be made at this time. The database is in single-user mode, and a user is currently connected to it."),
    (5069, 16, 1, "ALTER DATABASE statement failed."),
    (5070, 16, 2, "Database state cannot be changed while other users are using the database '%s'"),
    (5104, 16, 1, "File '%s' already used."),
    (5105, 16, 2, "A file activation error occurred. The physical file name '%s' may be incorrect. Diagnose and correct additional errors, and retry the operation."),
    (5120, 16, 101, "Unable to open the physical file \"%s\". Operating system error %s: \"%s\"."),
    (5121, 16, 1, "The path specified by \"%s\" is not in a valid directory."),
    (5123, 16, 1, "CREATE FILE encountered operating system error %s while attempting to open or create the physical file '%s'."),
    (5133, 16, 1, "Directory lookup for the file \"%s\" failed with the operating system error %s."),
    (5149, 16, 1, "MODIFY FILE encountered operating system error %s while attempting to expand the physical file '%s'."),
    (5170, 16, 1, "Cannot create file '%s' because it already exists. Change the file path or the file name, and retry the operation."),
    (5171, 16, 1, "%s is not a primary database file."),
    (5172, 16, 15, "The header for file '%s' is not a valid database file header. The %s property is incorrect."),
    (5173, 16, 1, "One or more files do not match the primary file of the database. If you are attempting to attach a database, retry the operation with the correct files. If this is an existing database, the file may be corrupted and should be restored from a backup."),
    (5181, 16, 5, "Could not restart database \"%s\". Reverting to the previous status."),
    (5701, 10, 2, "Changed database context to '%s'."),
    (6102, 14, 1, "User does not have permission to use the KILL statement."),
    (6104, 16, 1, "Cannot use KILL to kill your own process."),
    (6106, 16, 2, "Process ID %s is not an active process ID."),
    (7983, 14, 36, "User '%s' does not have permission to run DBCC CHECKDB for database."),
    (8134, 16, 1, "Divide by zero error encountered."),
    (8169, 16, 2, "Conversion failed when converting from a character string to uniqueidentifier."),
    (8928, 16, 1, "Object ID %s, index ID %s, partition ID %s, alloc unit ID %s (type %s): Page %s could not be processed.  See other errors for details."),
    (8989, 10, 1, "CHECKDB found %s allocation errors and %s consistency errors in database '%s'."),
    (9003, 20, 9, "The log scan number (%s) passed to log scan in database '%s' is not valid. This error may indicate data corruption or that the log file (.ldf) does not match the data file (.mdf). If this error occurred during replication, re-create the publication. Otherwise, restore from backup if the problem results in a failure during startup."),
    (15010, 16, 1, "The database '%s' does not exist. Supply a valid database name. To see available databases, use sys.databases."),
    (15023, 16, 1, "User, group, or role '%s' already exists in the current database."),
    (15025, 16, 1, "The server principal '%s' already exists."),
    (15151, 16, 1, "Cannot %s the %s '%s', because it does not exist or you do not have permission."),
    (15247, 16, 1, "User does not have permission to perform this action."),
    (17187, 16, 1, "SQL Server is not ready to accept new client connections. Wait a few minutes before trying again. If you have access to the error log, look for the informational message that indicates that SQL Server is ready before trying to connect again."),
    (18456, 14, 1, "Login failed for user '%s'."),
    (33111, 16, 3, "Cannot find server %s with thumbprint '%s'."),
    (50001, 16, 1, "The test instance does not model this statement: %s"),
    (50002, 16, 1, "The test instance does not model %s."),
];

/// Message `number` with its arguments filled in.
pub(crate) fn message(number: i32, arguments: &[&dyn Display]) -> Message {
    let known = TEXTS.iter().find(|entry| entry.0 == number);
    let &(_, class, state, template) = known.unwrap_or(&(50_000, 16, 1, "A message without a text."));
    let mut text = String::new();
    let mut rest = template;
    let mut arguments = arguments.iter();
    while let Some(at) = rest.find("%s") {
        text.push_str(&rest[..at]);
        if let Some(argument) = arguments.next() {
            text.push_str(&argument.to_string());
        }
        rest = &rest[at + 2..];
    }
    text.push_str(rest);
    let class = if class == 10 { 0 } else { class };
    Message { number, class, state, text, line: 1 }
}

/// An error of one message.
pub(crate) fn fail(number: i32, arguments: &[&dyn Display]) -> Stop {
    Stop::Errors(vec![message(number, arguments)])
}

impl Stop {
    /// The same with `number` after what is there already: 3013 or 5069 after the cause.
    pub(crate) fn then(self, number: i32, arguments: &[&dyn Display]) -> Self {
        match self {
            Self::Errors(mut messages) => {
                messages.push(message(number, arguments));
                Self::Errors(messages)
            }
            Self::Cancelled => Self::Cancelled,
        }
    }
}

/// Whether the rest of a batch runs after an error of this number.
pub(crate) fn batch_goes_on(number: i32) -> bool {
    let aborting = [102, 105, 113, 137, 155, 156, 195, 207, 208, 209, 229, 262, 297, 300, 596, 911, 916, 922];
    number < 50_000 && !aborting.contains(&number) && !(924..=948).contains(&number) && number != 9003
}

/// An operating system's error as SQL Server writes it, `5(Access is denied.)`.
pub(crate) fn system_error(error: &std::io::Error) -> (i32, &'static str) {
    if error.kind() == std::io::ErrorKind::StorageFull {
        return (112, "There is not enough space on the disk.");
    }
    match error.raw_os_error() {
        Some(2) => (2, "The system cannot find the file specified."),
        Some(1 | 13 | 30) => (5, "Access is denied."),
        Some(20) => (3, "The system cannot find the path specified."),
        Some(17) => (80, "The file exists."),
        Some(21) => (5, "Access is denied."),
        Some(22) => (87, "The parameter is incorrect."),
        Some(122) => (112, "There is not enough space on the disk."),
        Some(5) => (1117, "The request could not be performed because of an I/O device error."),
        _ => (31, "A device attached to the system is not functioning."),
    }
}

/// The same in one text.
pub(crate) fn system_error_text(error: &std::io::Error) -> String {
    let (number, text) = system_error(error);
    format!("{number}({text})")
}
