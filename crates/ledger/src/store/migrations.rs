//! How the store came to its present form, step by step. A step that was published is never changed.

/// One step.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Counts from 1.
    pub version: u32,
    /// What it is about.
    pub name: &'static str,
    /// The statements.
    pub sql: &'static str,
}

impl Migration {
    /// By which a change of the statements is noticed, whatever the ends of lines.
    pub fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for line in self.sql.lines() {
            hasher.update(line.trim_end().as_bytes());
            hasher.update(b"\n");
        }
        hasher.finalize()
    }
}

/// Those of SQLite.
pub const SQLITE: &[Migration] = &[
    Migration { version: 1, name: "records", sql: include_str!("migrations/sqlite/0001_records.sql") },
    Migration { version: 2, name: "usage", sql: include_str!("migrations/sqlite/0002_usage.sql") },
    Migration { version: 3, name: "limits", sql: include_str!("migrations/sqlite/0003_limits.sql") },
    Migration { version: 4, name: "short", sql: include_str!("migrations/sqlite/0004_short.sql") },
    Migration { version: 5, name: "compact", sql: include_str!("migrations/sqlite/0005_compact.sql") },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_without_gaps() {
        let versions: Vec<u32> = SQLITE.iter().map(|step| step.version).collect();
        assert_eq!(versions, (1..=SQLITE.len() as u32).collect::<Vec<_>>());
    }

    #[test]
    fn ends_of_lines_do_not_count() {
        let unix = Migration { version: 1, name: "", sql: "SELECT 1;\nSELECT 2;\n" };
        let windows = Migration { sql: "SELECT 1;\r\nSELECT 2;\r\n", ..unix };
        let other = Migration { sql: "SELECT 1;\nSELECT 3;\n", ..unix };
        assert_eq!(unix.checksum(), windows.checksum());
        assert_ne!(unix.checksum(), other.checksum());
    }

    /// A published step that differs from what users have makes their stores unusable.
    #[test]
    fn published_steps_are_as_they_were_published() {
        let sums: Vec<u32> = SQLITE.iter().map(Migration::checksum).collect();
        assert_eq!(sums, [719_444_778, 3_391_227_760, 2_231_626_492, 2_938_492_946, 3_086_621_694]);
    }
}
