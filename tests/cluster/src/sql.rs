//! SQL in tests: short calls that panic with the statement, and the SQL blocks of a document.

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

/// The fenced SQL blocks of a Markdown document, in order.
pub fn blocks(document: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in document.lines() {
        match &mut open {
            Some(block) if line.trim_start().starts_with("```") => {
                blocks.push(std::mem::take(block));
                open = None;
            }
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
            None if line.trim() == "```sql" => open = Some(String::new()),
            None => {}
        }
    }
    blocks
}
