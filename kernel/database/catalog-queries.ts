// What the kernel asks and tells the server's catalog about plugins' schemas and roles. Must not know when.

/** What the kernel's own login may do, and what there is of a plugin. */
export interface Survey {
  readonly user: string;
  readonly database: string;
  readonly superuser: boolean;
  readonly create_role: boolean;
  readonly create_schema: boolean;
  readonly has_schema: boolean;
  readonly has_role: boolean;
  /** Whether role and schema are as the kernel makes them, but perhaps for the password. */
  readonly settled: boolean;
  /** A role of that name with more rights than a plugin's may have. */
  readonly mighty: boolean;
  /** Whether the kernel's login may act as the role. */
  readonly member: boolean;
  /** Whether everybody may create something in the schema "public", as before PostgreSQL 15. */
  readonly public_open: boolean;
}

/** `$1` is the name of role and schema. */
export const SURVEY = `
  SELECT me.rolname::text AS user, current_database()::text AS database, me.rolsuper AS superuser, me.rolsuper OR me.rolcreaterole AS create_role,
    has_database_privilege(current_database()::text, 'CREATE'::text) AS create_schema,
    schema.oid IS NOT NULL AS has_schema, role.oid IS NOT NULL AS has_role,
    coalesce(role.rolcanlogin AND schema.nspowner = role.oid AND (me.rolsuper OR pg_has_role(me.oid, role.oid, 'USAGE'::text)), false)
      AND NOT EXISTS (SELECT FROM pg_db_role_setting WHERE setrole = role.oid)
      AND EXISTS (SELECT FROM pg_default_acl WHERE defaclrole = role.oid AND defaclnamespace = 0 AND defaclobjtype = 'f') AS settled,
    coalesce(role.rolsuper OR role.rolcreaterole OR role.rolcreatedb OR role.rolreplication OR role.rolbypassrls, false) AS mighty,
    role.oid IS NOT NULL AND pg_has_role(me.oid, role.oid, 'USAGE'::text) AS member,
    coalesce((SELECT has_schema_privilege('public', open.oid, 'CREATE') FROM pg_namespace open WHERE open.nspname = 'public'), false) AS public_open
  FROM pg_roles me LEFT JOIN pg_roles role ON role.rolname = $1::name LEFT JOIN pg_namespace schema ON schema.nspname = $1::name
  WHERE me.rolname = current_user`;

/** Tables, views, sequences, routines and types that the shared login has made in the schema before there was a role. What belongs to a table follows it. `$role$` is a literal. */
export const HAND_OVER = `
  DO $do$
  DECLARE statement text;
  BEGIN
    FOR statement IN
      SELECT format('ALTER %s %s OWNER TO %I', CASE c.relkind WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, c.oid::regclass, $role$) FROM pg_class c
        WHERE c.relnamespace = to_regnamespace(quote_ident($role$)) AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND c.relowner = current_user::regrole
          AND NOT (c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')))
      UNION ALL SELECT format('ALTER ROUTINE %s OWNER TO %I', p.oid::regprocedure, $role$) FROM pg_proc p
        WHERE p.pronamespace = to_regnamespace(quote_ident($role$)) AND p.proowner = current_user::regrole
      UNION ALL SELECT format('ALTER TYPE %s OWNER TO %I', t.oid::regtype, $role$) FROM pg_type t
        WHERE t.typnamespace = to_regnamespace(quote_ident($role$)) AND t.typtype IN ('e', 'd', 'r') AND t.typowner = current_user::regrole
    LOOP EXECUTE statement; END LOOP;
  END $do$`;

/** Roles of plugins that can enter the schema `$1`. */
export const ADMITTED = `
  SELECT DISTINCT role.rolname AS role FROM pg_namespace schema, aclexplode(schema.nspacl) item JOIN pg_roles role ON role.oid = item.grantee
  WHERE schema.nspname = $1::name AND role.rolname LIKE 'plugin\\_%' AND role.rolname <> $1::name`;

/** Sequences that columns of the table `$2` in the schema `$1` take their defaults from. */
export const SEQUENCES = `
  SELECT sequence.relname AS name FROM pg_depend d
    JOIN pg_class sequence ON sequence.oid = d.objid AND sequence.relkind = 'S' JOIN pg_class owner ON owner.oid = d.refobjid JOIN pg_namespace n ON n.oid = owner.relnamespace
  WHERE d.deptype = 'a' AND n.nspname = $1::name AND owner.relname = $2::name`;
