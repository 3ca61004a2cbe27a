//! Analysed query trees: reading one as plain Rust data, narrowing it to a window, turning it back into SQL.

use std::ffi::{CStr, c_char, c_void};

use pgrx::pg_sys::{self, Oid};
use pgrx::{PgList, PgSqlErrorCode, is_a};

use super::session::{c_string, to_string};
use super::varlena::int8multirange;
use crate::error::{Error, Result};

/// An analysed SELECT.
pub struct Select(*mut pg_sys::Query);

/// What a SELECT consists of, as far as a rollup has to know.
pub struct Shape {
    /// Clauses that a rollup cannot have, by the words a user would look for.
    pub unsupported: Vec<&'static str>,
    pub columns: Vec<Column>,
    /// Expressions of GROUP BY that the SELECT does not return.
    pub hidden_keys: Vec<String>,
    /// The relations of the FROM clause itself.
    pub relations: Vec<Relation>,
    /// Relations read elsewhere: in subqueries, at any depth.
    pub nested_relations: Vec<Oid>,
    pub has_group_by: bool,
    /// Whether any function in it is volatile.
    pub is_volatile: bool,
    /// Whether it asks for the current time.
    pub reads_clock: bool,
    /// Whether anything before the aggregates depends on settings of the session, such as TimeZone.
    pub is_mutable: bool,
}

/// One output column.
pub struct Column {
    pub name: String,
    pub type_oid: Oid,
    pub type_name: String,
    pub kind: ColumnKind,
}

pub enum ColumnKind {
    /// In GROUP BY. `mutable`: its value depends on settings of the session, such as TimeZone. `plain`: relation
    /// (by its index) and name, where it is a column of a table as it stands.
    Key { mutable: bool, plain: Option<(usize, String)> },
    /// One aggregate call and nothing around it.
    Aggregate(Aggregate),
    /// Anything else; the aggregates inside it, by name.
    Other { aggregates: Vec<String> },
}

pub struct Aggregate {
    pub schema: String,
    pub name: String,
    pub distinct: bool,
    /// An ordered-set or hypothetical-set aggregate.
    pub ordered_set: bool,
}

/// A relation of the FROM clause.
#[derive(Clone)]
pub struct Relation {
    /// Its place in the range table, from 1.
    pub index: usize,
    pub oid: Oid,
    pub kind: u8,
    /// Whether it stands on the side of an outer join that may be missing.
    pub optional: bool,
    pub sampled: bool,
}

/// One end of a window.
pub struct Limit {
    pub operator: &'static str,
    pub end: End,
}

/// What a [`Limit`] compares with.
pub enum End {
    /// A value of a type of eight bytes.
    Constant { type_oid: Oid, value: i64 },
    /// An `int8multirange`, as text.
    Ids(String),
    /// What a function of one argument, a relation, returns when the query runs.
    Function { function: Oid, relation: Oid },
}

impl End {
    /// # Safety
    /// The function takes a regclass.
    unsafe fn node(&self) -> *mut pg_sys::Expr {
        let constant = |type_oid, length, value| {
            // SAFETY: builds a node for a value passed by value.
            unsafe { pg_sys::makeConst(type_oid, -1, Oid::INVALID, length, value, false, true) }
        };
        match *self {
            End::Constant { type_oid, value } => constant(type_oid, 8, pg_sys::Datum::from(value)).cast(),
            End::Ids(ref ids) => {
                let (value, type_oid) = (int8multirange(ids), pg_sys::INT8MULTIRANGEOID);
                // SAFETY: builds a node for a value of that type.
                unsafe { pg_sys::makeConst(type_oid, -1, Oid::INVALID, -1, value, false, false).cast() }
            }
            End::Function { function, relation } => {
                // SAFETY: builds a call from catalog facts in the current memory context.
                unsafe {
                    let mut arguments = PgList::<pg_sys::Node>::new();
                    arguments.push(constant(pg_sys::REGCLASSOID, 4, pg_sys::Datum::from(relation)).cast());
                    let form = pg_sys::CoercionForm::COERCE_EXPLICIT_CALL;
                    let result = pg_sys::get_func_rettype(function);
                    let none = Oid::INVALID;
                    pg_sys::makeFuncExpr(function, result, arguments.into_pg(), none, none, form).cast()
                }
            }
        }
    }
}

impl Select {
    /// Parses and analyses `sql`, which must be exactly one SELECT; also returns its text without what surrounds it.
    pub fn parse(sql: &str) -> Result<(Select, String)> {
        let source = c_string(sql);
        // SAFETY: the parser's trees live in the current memory context; the nodes are what their tags say.
        unsafe {
            let statements = PgList::<pg_sys::RawStmt>::from_pg(pg_sys::pg_parse_query(source.as_ptr()));
            if statements.len() != 1 {
                return Err(not_a_query(match statements.len() {
                    0 => "the query is empty".into(),
                    n => format!("the query holds {n} statements"),
                }));
            }
            let statement = statements.get_ptr(0).expect("one statement");
            let node = (*statement).stmt;
            if !is_a(node, pg_sys::NodeTag::T_SelectStmt) {
                return Err(not_a_query("the query is not a SELECT".into()));
            }
            let select = node as *mut pg_sys::SelectStmt;
            if !(*select).intoClause.is_null() {
                return Err(not_a_query("the query is a SELECT INTO".into()));
            }
            if !(*select).valuesLists.is_null() {
                return Err(not_a_query("the query is a VALUES list".into()));
            }
            let start = (*statement).stmt_location.max(0) as usize;
            let bytes = &sql.as_bytes()[start..];
            let len = (*statement).stmt_len as usize;
            let text = if len == 0 { bytes } else { &bytes[..len] };
            let query = pg_sys::parse_analyze_fixedparams(
                statement,
                source.as_ptr(),
                std::ptr::null(),
                0,
                std::ptr::null_mut(),
            );
            Ok((Select::of(query), to_string(text).trim().to_owned()))
        }
    }

    /// The query of a view; `None` when there is no such view.
    pub fn of_view(view: Oid) -> Option<Select> {
        // SAFETY: the relation is open, and known to be a view, while its rule is copied.
        unsafe {
            let relation = pg_sys::try_relation_open(view, pg_sys::AccessShareLock as i32);
            if relation.is_null() {
                return None;
            }
            if (*(*relation).rd_rel).relkind as u8 != pg_sys::RELKIND_VIEW {
                pg_sys::relation_close(relation, pg_sys::NoLock as i32);
                return None;
            }
            let query = pg_sys::copyObjectImpl(pg_sys::get_view_query(relation).cast()).cast();
            pg_sys::relation_close(relation, pg_sys::NoLock as i32);
            Some(Select::of(query))
        }
    }

    /// # Safety
    /// `query` is a live analysed SELECT that nobody else uses.
    unsafe fn of(query: *mut pg_sys::Query) -> Select {
        // The order of rows means nothing in a table; what it was computed from goes with it.
        // SAFETY: by contract.
        unsafe {
            let query = &mut *query;
            query.sortClause = std::ptr::null_mut();
            let grouped = group_references(query);
            let mut kept = PgList::<pg_sys::TargetEntry>::new();
            for entry in PgList::<pg_sys::TargetEntry>::from_pg(query.targetList).iter_ptr() {
                if !(*entry).resjunk || grouped.contains(&(*entry).ressortgroupref) {
                    kept.push(entry);
                }
            }
            query.targetList = kept.into_pg();
        }
        Select(query)
    }

    /// Adds to the WHERE clause that `column`, which belongs to `relation`, keeps within all limits of one of the
    /// ranges and, where there are `except`, is none of these ids, an `int8multirange`.
    pub fn restrict(
        &mut self,
        relation: &Relation,
        column: &str,
        ranges: &[Vec<Limit>],
        except: Option<&End>,
    ) -> Result<()> {
        // SAFETY: hangs expression nodes that were built for this tree into it; it is ours alone (parsed or copied).
        unsafe {
            let mut alternatives = PgList::<pg_sys::Expr>::new();
            for limits in ranges {
                let mut within: *mut pg_sys::Node = std::ptr::null_mut();
                for limit in limits {
                    within = pg_sys::make_and_qual(within, comparison(relation, column, limit)?);
                }
                alternatives.push(within.cast());
            }
            let condition = match alternatives.len() {
                1 => alternatives.head().expect("one").cast(),
                _ => pg_sys::make_orclause(alternatives.into_pg()).cast(),
            };
            let from = (*self.0).jointree;
            (*from).quals = pg_sys::make_and_qual((*from).quals, condition);
            if let Some(ids) = except {
                (*from).quals = pg_sys::make_and_qual((*from).quals, outside(relation, column, ids)?);
            }
        }
        Ok(())
    }

    /// The query as SQL for the present search_path: what that would not find, or find elsewhere, is qualified. Where
    /// SQL has no way to name an operator (JOIN USING, IS DISTINCT FROM, CASE x WHEN), it is an error if another one
    /// would be found by now.
    pub fn to_sql(&self) -> Result<String> {
        let sql = self.deparse();
        let (reread, _) = Select::parse(&sql)?;
        if reread.calls() == self.calls() {
            return Ok(sql);
        }
        Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "an operator or function of the query is found in another schema by now",
        )
        .detail("One with the same name and better fitting types was created in a schema of the rollup's search_path.")
        .hint("Drop it, or drop the rollup and register it again."))
    }

    /// All operators and functions in the query, in a fixed order.
    fn calls(&self) -> Vec<u32> {
        let mut facts = Facts::default();
        // SAFETY: an analysed tree; the walker gets the context it expects.
        unsafe { walk(self.0.cast(), (&raw mut facts).cast()) };
        facts.calls.sort();
        facts.calls
    }

    fn deparse(&self) -> String {
        // SAFETY: the deparser reads the tree and returns a palloc'd string.
        unsafe {
            let text = pg_sys::pg_get_querydef(self.0, true);
            to_string(CStr::from_ptr(text).to_bytes()).trim_end_matches(';').to_owned()
        }
    }

    /// Reads the tree.
    pub fn shape(&self) -> Shape {
        // SAFETY: an analysed tree, alive in the current memory context; every pointer that is followed was tested
        // or is never NULL in such a tree.
        unsafe {
            let query = &*self.0;
            let mut unsupported = Vec::new();
            for (present, words) in [
                (!query.setOperations.is_null(), "UNION, INTERSECT or EXCEPT"),
                (!query.cteList.is_null(), "WITH"),
                (!query.distinctClause.is_null(), "SELECT DISTINCT"),
                (query.hasWindowFuncs, "window functions"),
                (!query.groupingSets.is_null(), "GROUPING SETS, ROLLUP or CUBE"),
                (!query.havingQual.is_null(), "HAVING"),
                (!query.limitCount.is_null() || !query.limitOffset.is_null(), "LIMIT or OFFSET"),
                (!query.rowMarks.is_null(), "FOR UPDATE or FOR SHARE"),
            ] {
                if present {
                    unsupported.push(words);
                }
            }

            let grouped = group_references(query);
            let (mut columns, mut hidden_keys) = (Vec::new(), Vec::new());
            for entry in PgList::<pg_sys::TargetEntry>::from_pg(query.targetList).iter_ptr() {
                let is_key = (*entry).ressortgroupref != 0 && grouped.contains(&(*entry).ressortgroupref);
                if !(*entry).resjunk {
                    columns.push(column(self.0, entry, is_key));
                } else if is_key {
                    hidden_keys.push(format!("number {}", (*entry).ressortgroupref));
                }
            }

            let mut relations = Vec::new();
            from_relations(query, query.jointree.cast(), false, &mut relations);
            let mut facts = Facts { depth: 0, ..Default::default() };
            walk(self.0.cast(), (&raw mut facts).cast());
            let nested_relations = facts.nested;
            Shape {
                unsupported,
                columns,
                hidden_keys,
                relations,
                nested_relations,
                has_group_by: !query.groupClause.is_null(),
                is_volatile: pg_sys::contain_volatile_functions(self.0.cast()),
                reads_clock: facts.reads_clock,
                is_mutable: pg_sys::contain_mutable_functions(self.0.cast()),
            }
        }
    }
}

/// The numbers by which GROUP BY refers to entries of the target list.
///
/// # Safety
/// `query` is a live analysed tree.
unsafe fn group_references(query: &pg_sys::Query) -> Vec<u32> {
    // SAFETY: by contract.
    unsafe {
        let clauses = PgList::<pg_sys::SortGroupClause>::from_pg(query.groupClause);
        clauses.iter_ptr().map(|clause| (*clause).tleSortGroupRef).collect()
    }
}

/// `column <operator> end`.
///
/// # Safety
/// `relation` is a relation of the tree that the node becomes part of.
unsafe fn comparison(relation: &Relation, column: &str, limit: &Limit) -> Result<*mut pg_sys::Node> {
    // SAFETY: builds nodes from catalog facts in the current memory context.
    unsafe {
        let var = variable(relation, column)?;
        let type_oid = (*var).vartype;
        let end = limit.end.node();
        let operator =
            pg_sys::OpernameGetOprid(operator_name(limit.operator), type_oid, pg_sys::exprType(end.cast()));
        if operator == Oid::INVALID {
            let type_name = name(pg_sys::format_type_be(type_oid));
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("column \"{column}\" of the event table is of type {type_name} now"),
            )
            .detail("The rollup cannot follow the order of its values any more.")
            .hint("Change it back, or drop the rollup and register it again."));
        }
        let none = Oid::INVALID;
        let clause = pg_sys::make_opclause(operator, pg_sys::BOOLOID, false, var.cast(), end, none, none);
        // What make_opclause leaves open, the planner and the deparser want filled.
        pg_sys::set_opfuncid(clause.cast());
        Ok(clause.cast())
    }
}

/// `NOT column <@ ids`.
///
/// # Safety
/// As for [`comparison`].
unsafe fn outside(relation: &Relation, column: &str, ids: &End) -> Result<*mut pg_sys::Node> {
    use pg_sys::{CoercionContext::COERCION_EXPLICIT, CoercionForm::COERCE_EXPLICIT_CAST};
    // SAFETY: builds nodes as the parser does for the same SQL.
    unsafe {
        let var = variable(relation, column)?;
        let (from, to, none) = ((*var).vartype, pg_sys::INT8OID, std::ptr::null_mut::<pg_sys::Node>());
        let (context, form) = (COERCION_EXPLICIT, COERCE_EXPLICIT_CAST);
        let state = pg_sys::make_parsestate(none.cast());
        let id = pg_sys::coerce_to_target_type(state, var.cast(), from, to, -1, context, form, -1);
        let within = pg_sys::make_op(state, operator_name("<@"), id, ids.node().cast(), none, -1);
        pg_sys::free_parsestate(state);
        Ok(pg_sys::make_notclause(within).cast())
    }
}

/// A column of a relation as it stands in the tree.
///
/// # Safety
/// As for [`comparison`].
unsafe fn variable(relation: &Relation, column: &str) -> Result<*mut pg_sys::Var> {
    let attribute = c_string(column);
    // SAFETY: looks the column up and builds a node.
    unsafe {
        let number = pg_sys::get_attnum(relation.oid, attribute.as_ptr());
        if number == pg_sys::InvalidAttrNumber as i16 {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("column \"{column}\" of the event table does not exist any more"),
            )
            .hint("Rename it back, or drop the rollup and register it again."));
        }
        let (mut type_oid, mut typmod, mut collation) = (Oid::INVALID, 0, Oid::INVALID);
        pg_sys::get_atttypetypmodcoll(relation.oid, number, &mut type_oid, &mut typmod, &mut collation);
        Ok(pg_sys::makeVar(relation.index as _, number, type_oid, typmod, Oid::INVALID, 0))
    }
}

/// The name of an operator of PostgreSQL's own, as the parser has it.
fn operator_name(operator: &str) -> *mut pg_sys::List {
    let mut names = PgList::<pg_sys::Node>::new();
    for part in [c"pg_catalog".to_owned(), c_string(operator)] {
        // SAFETY: builds a node with a copy of the string in the current memory context.
        names.push(unsafe { pg_sys::makeString(pg_sys::pstrdup(part.as_ptr())).cast() });
    }
    names.into_pg()
}

fn not_a_query(message: String) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
        .detail("The definition of a rollup is one SELECT over an event table.")
        .hint("For example: SELECT day, count(*) FROM events GROUP BY day.")
}

/// # Safety
/// `entry` is a live entry of the target list of `query`.
unsafe fn column(query: *mut pg_sys::Query, entry: *mut pg_sys::TargetEntry, is_key: bool) -> Column {
    // SAFETY: by contract.
    unsafe {
        let mut expression = (*entry).expr as *mut pg_sys::Node;
        #[cfg(feature = "pg18")]
        {
            // A key is a reference to the grouping step there; what stands behind it counts.
            expression = pg_sys::flatten_group_exprs(std::ptr::null_mut(), query, expression);
        }
        let type_oid = pg_sys::exprType(expression);
        let kind = if is_key {
            ColumnKind::Key {
                mutable: pg_sys::contain_mutable_functions(expression),
                plain: plain_column(query, expression),
            }
        } else {
            if is_a(expression, pg_sys::NodeTag::T_RelabelType) {
                expression = (*(expression as *mut pg_sys::RelabelType)).arg.cast();
            }
            if is_a(expression, pg_sys::NodeTag::T_Aggref) {
                let call = &*(expression as *mut pg_sys::Aggref);
                ColumnKind::Aggregate(Aggregate {
                    schema: name(pg_sys::get_namespace_name(pg_sys::get_func_namespace(call.aggfnoid))),
                    name: name(pg_sys::get_func_name(call.aggfnoid)),
                    distinct: !call.aggdistinct.is_null(),
                    ordered_set: call.aggkind as u8 != b'n',
                })
            } else {
                let mut facts = Facts { depth: 1, ..Default::default() };
                walk(expression, (&raw mut facts).cast());
                ColumnKind::Other { aggregates: facts.aggregates }
            }
        };
        Column {
            name: name((*entry).resname),
            type_oid,
            type_name: name(pg_sys::format_type_with_typemod(
                type_oid,
                pg_sys::exprTypmod((*entry).expr.cast()),
            )),
            kind,
        }
    }
}

/// The relation and name of a column that stands alone, also behind JOIN .. USING.
///
/// # Safety
/// `expression` is a live expression of `query`.
unsafe fn plain_column(query: *mut pg_sys::Query, expression: *mut pg_sys::Node) -> Option<(usize, String)> {
    // SAFETY: by contract; a Var of this level points into the range table.
    unsafe {
        #[cfg(feature = "pg15")]
        let flat = pg_sys::flatten_join_alias_vars(query, expression);
        #[cfg(not(feature = "pg15"))]
        let flat = pg_sys::flatten_join_alias_vars(std::ptr::null_mut(), query, expression);
        if !is_a(flat, pg_sys::NodeTag::T_Var) {
            return None;
        }
        let var = &*(flat as *mut pg_sys::Var);
        let index = var.varno as usize;
        let entry = PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable).get_ptr(index - 1)?;
        let column = pg_sys::get_attname((*entry).relid, var.varattno, true);
        (!column.is_null()).then(|| (index, name(column)))
    }
}

/// # Safety
/// `text` is NULL or a NUL-terminated string.
unsafe fn name(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: by contract.
    unsafe { to_string(CStr::from_ptr(text).to_bytes()) }
}

/// Collects the relations below a node of the join tree.
///
/// # Safety
/// `node` belongs to the join tree of `query`.
unsafe fn from_relations(
    query: &pg_sys::Query,
    node: *mut pg_sys::Node,
    optional: bool,
    found: &mut Vec<Relation>,
) {
    // SAFETY: by contract; the tags say what each node is.
    unsafe {
        if is_a(node, pg_sys::NodeTag::T_FromExpr) {
            let from = node as *mut pg_sys::FromExpr;
            for child in PgList::<pg_sys::Node>::from_pg((*from).fromlist).iter_ptr() {
                from_relations(query, child, optional, found);
            }
        } else if is_a(node, pg_sys::NodeTag::T_JoinExpr) {
            use pg_sys::JoinType::{JOIN_FULL, JOIN_LEFT, JOIN_RIGHT};
            let join = &*(node as *mut pg_sys::JoinExpr);
            let left_optional = matches!(join.jointype, JOIN_RIGHT | JOIN_FULL);
            let right_optional = matches!(join.jointype, JOIN_LEFT | JOIN_FULL);
            from_relations(query, join.larg, optional || left_optional, found);
            from_relations(query, join.rarg, optional || right_optional, found);
        } else if is_a(node, pg_sys::NodeTag::T_RangeTblRef) {
            let index = (*(node as *mut pg_sys::RangeTblRef)).rtindex as usize;
            let entry = &*PgList::<pg_sys::RangeTblEntry>::from_pg(query.rtable)
                .get_ptr(index - 1)
                .expect("a range table reference points into the range table");
            if entry.rtekind == pg_sys::RTEKind::RTE_RELATION {
                found.push(Relation {
                    index,
                    oid: entry.relid,
                    kind: entry.relkind as u8,
                    optional,
                    sampled: !entry.tablesample.is_null(),
                });
            }
        }
    }
}

/// What a walk over a tree gathers.
#[derive(Default)]
struct Facts {
    depth: usize,
    nested: Vec<Oid>,
    aggregates: Vec<String>,
    calls: Vec<u32>,
    reads_clock: bool,
}

/// The tree walker behind `Facts`; PostgreSQL calls it for every node.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn walk(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    const CLOCK: [u32; 3] = [pg_sys::F_NOW, pg_sys::F_TRANSACTION_TIMESTAMP, pg_sys::F_STATEMENT_TIMESTAMP];
    if node.is_null() {
        return false;
    }
    // SAFETY: PostgreSQL hands back the nodes of the tree and the context that was given to it.
    unsafe {
        let facts = &mut *(context as *mut Facts);
        match (*node).type_ {
            pg_sys::NodeTag::T_Query => {
                facts.depth += 1;
                let flags = (pg_sys::QTW_EXAMINE_RTES_BEFORE | pg_sys::QTW_IGNORE_JOINALIASES) as i32;
                pg_sys::query_tree_walker(node.cast(), Some(walk), context, flags);
                let facts = &mut *(context as *mut Facts);
                facts.depth -= 1;
                return false;
            }
            pg_sys::NodeTag::T_RangeTblEntry => {
                let entry = &*(node as *mut pg_sys::RangeTblEntry);
                if facts.depth > 1 && entry.rtekind == pg_sys::RTEKind::RTE_RELATION {
                    facts.nested.push(entry.relid);
                }
                return false;
            }
            pg_sys::NodeTag::T_Aggref => {
                let call = &*(node as *mut pg_sys::Aggref);
                facts.aggregates.push(name(pg_sys::get_func_name(call.aggfnoid)));
                facts.calls.push(call.aggfnoid.to_u32());
            }
            pg_sys::NodeTag::T_OpExpr | pg_sys::NodeTag::T_DistinctExpr | pg_sys::NodeTag::T_NullIfExpr => {
                facts.calls.push((*(node as *mut pg_sys::OpExpr)).opno.to_u32());
            }
            pg_sys::NodeTag::T_ScalarArrayOpExpr => {
                facts.calls.push((*(node as *mut pg_sys::ScalarArrayOpExpr)).opno.to_u32());
            }
            pg_sys::NodeTag::T_RowCompareExpr => {
                let operators = (*(node as *mut pg_sys::RowCompareExpr)).opnos;
                facts.calls.extend(PgList::<Oid>::from_pg(operators).iter_oid().map(|oid| oid.to_u32()));
            }
            pg_sys::NodeTag::T_WindowFunc => {
                facts.calls.push((*(node as *mut pg_sys::WindowFunc)).winfnoid.to_u32())
            }
            pg_sys::NodeTag::T_SQLValueFunction => {
                use pg_sys::SQLValueFunctionOp::*;
                let call = &*(node as *mut pg_sys::SQLValueFunction);
                facts.reads_clock |= !matches!(
                    call.op,
                    SVFOP_CURRENT_ROLE
                        | SVFOP_CURRENT_USER
                        | SVFOP_USER
                        | SVFOP_SESSION_USER
                        | SVFOP_CURRENT_CATALOG
                        | SVFOP_CURRENT_SCHEMA
                );
            }
            pg_sys::NodeTag::T_FuncExpr => {
                let function = (*(node as *mut pg_sys::FuncExpr)).funcid;
                facts.reads_clock |= CLOCK.contains(&function.to_u32());
                facts.calls.push(function.to_u32());
            }
            _ => {}
        }
        pg_sys::expression_tree_walker(node, Some(walk), context)
    }
}
