//! SQL in tests: short calls that panic with the statement, sections of a seed, comparisons.

use postgres::Client;
use postgres::types::FromSqlOwned;

/// What tests ask of a connection.
pub trait Sql {
    /// Runs statements; panics at an error.
    fn run(&mut self, sql: &str);
    /// Runs statements that must fail; the error.
    fn fails(&mut self, sql: &str) -> postgres::error::DbError;
    /// The one value of a query.
    fn value<T: FromSqlOwned>(&mut self, sql: &str) -> T;
    /// The rows of a query as text, columns separated by `|`, NULL as nothing.
    fn lines(&mut self, sql: &str) -> Vec<String>;
}

impl Sql for Client {
    #[track_caller]
    fn run(&mut self, sql: &str) {
        self.batch_execute(sql).unwrap_or_else(|error| panic!("{}\n{sql}", describe(&error)));
    }

    #[track_caller]
    fn fails(&mut self, sql: &str) -> postgres::error::DbError {
        match self.batch_execute(sql) {
            Ok(()) => panic!("no error from\n{sql}"),
            Err(error) => match error.as_db_error() {
                Some(error) => error.clone(),
                None => panic!("{error}\n{sql}"),
            },
        }
    }

    #[track_caller]
    fn value<T: FromSqlOwned>(&mut self, sql: &str) -> T {
        match self.query_one(sql, &[]) {
            Ok(row) => row.get(0),
            Err(error) => panic!("{}\n{sql}", describe(&error)),
        }
    }

    #[track_caller]
    fn lines(&mut self, sql: &str) -> Vec<String> {
        use postgres::SimpleQueryMessage::Row;
        let messages = self.simple_query(sql).unwrap_or_else(|error| panic!("{}\n{sql}", describe(&error)));
        let line = |row: postgres::SimpleQueryRow| {
            let columns: Vec<&str> = (0..row.len()).map(|i| row.get(i).unwrap_or("")).collect();
            columns.join("|")
        };
        messages.into_iter().filter_map(|m| if let Row(row) = m { Some(line(row)) } else { None }).collect()
    }
}

fn describe(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(e) => format!(
            "{} {}: {}\n{}\n{}",
            e.severity(),
            e.code().code(),
            e.message(),
            e.detail().unwrap_or(""),
            e.hint().unwrap_or("")
        ),
        None => error.to_string(),
    }
}

/// One section of a seed file: what follows the line `--- name`, up to the next such line.
pub fn section<'a>(document: &'a str, name: &str) -> &'a str {
    let heading = format!("--- {name}\n");
    let start = document.find(&heading).unwrap_or_else(|| panic!("no section {name}")) + heading.len();
    let rest = &document[start..];
    &rest[..rest.find("\n--- ").unwrap_or(rest.len())]
}

/// The rows that two queries of the same columns do not share, NULLs equal, duplicates counted; none when both
/// return the same.
pub fn differences(client: &mut Client, one: &str, other: &str) -> Vec<String> {
    client.lines(&format!(
        "(SELECT 'only in the first', d.* FROM (({one}) EXCEPT ALL ({other})) d LIMIT 10)
         UNION ALL (SELECT 'only in the second', d.* FROM (({other}) EXCEPT ALL ({one})) d LIMIT 10)"
    ))
}
