----------------------------------------------------------------------
-- Distributed tables: DDL on all nodes (R4)
----------------------------------------------------------------------

CREATE TABLE payshard.ddl_log (
	gid text PRIMARY KEY,
	committed boolean NOT NULL,
	logged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	role name NOT NULL DEFAULT session_user,
	statement text NOT NULL
);
COMMENT ON TABLE payshard.ddl_log IS 'DDL that ran on all nodes in one transaction (R4); on the node where it was issued the committed row is the decision';

CREATE SEQUENCE payshard.table_number MAXVALUE 16777215;
COMMENT ON SEQUENCE payshard.table_number IS 'numbers of tables made on this node: lower 24 bits of a table id, never used again';

CREATE FUNCTION payshard.peer_ddl_begin(gid text, role name, statement text) RETURNS void
	LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	LOCK TABLE payshard.distributed_table IN SHARE ROW EXCLUSIVE MODE;
	INSERT INTO payshard.ddl_log (gid, committed, role, statement) VALUES (gid, true, role, statement);
END $$;
COMMENT ON FUNCTION payshard.peer_ddl_begin IS 'between nodes: a transaction with DDL on all nodes begins here; one at a time';

CREATE FUNCTION payshard.peer_ddl_outcome(gid text) RETURNS boolean
	LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
BEGIN
	-- waits while the transaction that issued it is under way; if it is gone, it never happens
	INSERT INTO payshard.ddl_log (gid, committed, statement) VALUES ($1, false, '') ON CONFLICT DO NOTHING;
	RETURN (SELECT l.committed FROM payshard.ddl_log l WHERE l.gid = $1);
END $$;
COMMENT ON FUNCTION payshard.peer_ddl_outcome IS 'between nodes: did the DDL of this id commit where it was issued?';

CREATE FUNCTION payshard.peer_ddl(script text, role name, search_path text) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_ddl';
COMMENT ON FUNCTION payshard.peer_ddl IS 'between nodes: runs DDL here only, as the role that issued it';
CREATE FUNCTION payshard.peer_acked_seq(node int) RETURNS bigint
	STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'payshard_peer_acked_seq';
COMMENT ON FUNCTION payshard.peer_acked_seq IS 'between nodes: the last entry of this incarnation of this node that the other has journaled';
CREATE FUNCTION payshard.peer_register(table_id bigint, relation text, key_columns name[], colocation text) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_register';
COMMENT ON FUNCTION payshard.peer_register IS 'between nodes: a table is distributed from now on';
CREATE FUNCTION payshard.peer_unregister(table_id bigint) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_unregister';
COMMENT ON FUNCTION payshard.peer_unregister IS 'between nodes: a table is not distributed any more';
CREATE FUNCTION payshard.peer_load(relation text, columns text[], rows text) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_load';
COMMENT ON FUNCTION payshard.peer_load IS 'between nodes: loads rows, in the text format of COPY, into a table that is being distributed';
CREATE FUNCTION payshard.peer_rows(relation text, shard int) RETURNS SETOF text
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_rows';
COMMENT ON FUNCTION payshard.peer_rows IS 'between nodes: the rows of one shard here, each a line in the text format of COPY';

-- Sequences that number a column: serial (owned, used by the default) or identity.
CREATE FUNCTION payshard.table_sequences(rel regclass,
	OUT sequence regclass, OUT column_name name, OUT is_identity boolean, OUT last_value bigint)
	RETURNS SETOF record LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	FOR sequence, column_name, is_identity IN
		SELECT d.objid::regclass, a.attname, a.attidentity <> ''
		FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
			JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
		WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
			AND d.refobjid = rel AND d.deptype IN ('a', 'i')
		ORDER BY a.attnum, s.relname
	LOOP
		EXECUTE format('SELECT CASE WHEN is_called THEN s.last_value ELSE s.last_value - 1 END FROM %s s', sequence)
			INTO last_value;
		RETURN NEXT;
	END LOOP;
END $$;
COMMENT ON FUNCTION payshard.table_sequences IS 'sequences owned by columns of a table, with the last value given out here';

-- Highest value in use of each sequence of a table, as far as this node knows.
CREATE FUNCTION payshard.sequence_floors(rel regclass) RETURNS jsonb
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	s record;
	top bigint;
	floors jsonb := '{}';
BEGIN
	FOR s IN SELECT * FROM payshard.table_sequences(rel) LOOP
		top := s.last_value;
		IF (SELECT relkind = 'r' FROM pg_class WHERE oid = rel) AND
			(SELECT atttypid IN (20, 21, 23) FROM pg_attribute WHERE attrelid = rel AND attname = s.column_name) THEN
			EXECUTE format('SELECT greatest(%s, max(%I)) FROM ONLY %s', top, s.column_name, rel) INTO top;
		END IF;
		floors := floors || jsonb_build_object(s.column_name, top);
	END LOOP;
	RETURN floors;
END $$;
COMMENT ON FUNCTION payshard.sequence_floors IS 'by column: the highest value this node knows to be in use';

-- Each node numbers in its own residue class: node k gives out k, k + 64, k + 128 ... (times the
-- sequence's own increment), so that no two nodes ever give out the same number.
CREATE FUNCTION payshard.sequence_options(sequence regclass, top bigint, node int, was_distributed boolean)
	RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT format('AS %s INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s CACHE %s',
		format_type(s.seqtypid, NULL), CASE WHEN node = 0 THEN i.one ELSE i.one * 64 END, s.seqmin, s.seqmax,
		CASE WHEN node = 0 THEN top + 1
			ELSE top + 1 + mod(mod(node * i.one - (top + 1), i.one * 64) + i.one * 64, i.one * 64) END,
		s.seqcache)
	FROM pg_sequence s,
		LATERAL (SELECT CASE WHEN was_distributed THEN s.seqincrement / 64 ELSE s.seqincrement END AS one) i
	WHERE s.seqrelid = sequence
$$;
COMMENT ON FUNCTION payshard.sequence_options IS 'options of a sequence on a node (0 = of a table that is not distributed)';

CREATE FUNCTION payshard.ddl_grants(kind text, name text, acl aclitem[], owner oid, column_name name) RETURNS text
	LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT coalesce(string_agg(format('GRANT %s%s ON %s %s TO %s%s', x.privilege_type,
			CASE WHEN column_name IS NULL THEN '' ELSE format(' (%I)', column_name) END, kind, name,
			CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END,
			CASE WHEN x.is_grantable AND x.grantee <> owner THEN ' WITH GRANT OPTION' ELSE '' END),
			E';\n' ORDER BY x.grantee, x.privilege_type) || E';\n', '')
	FROM aclexplode(acl) x
$$;
COMMENT ON FUNCTION payshard.ddl_grants IS 'GRANT statements for an access list';

-- What makes the table and its partitions; rows can be loaded after it.
CREATE FUNCTION payshard.table_ddl_before(rel regclass, partitions text, key_columns name[], shards int,
	node int, floors jsonb, plain boolean) RETURNS text
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET intervalstyle = postgres
	SET extra_float_digits = 3 AS $$
DECLARE
	c pg_class;
	t text;
	ddl text := '';
	owner text;
	options text;
	was_distributed boolean;
BEGIN
	SELECT * INTO c FROM pg_class WHERE oid = rel;
	t := format('%I.%I', c.relnamespace::regnamespace::text, c.relname);
	SELECT format('%I.%I', n.nspname, c.relname) INTO t FROM pg_namespace n WHERE n.oid = c.relnamespace;
	owner := quote_ident(pg_get_userbyid(c.relowner));
	was_distributed := c.relkind = 'p';
	SELECT CASE WHEN x.reloptions IS NULL THEN '' ELSE format(' WITH (%s)', array_to_string(x.reloptions, ', ')) END
		INTO options
		FROM pg_class x
		WHERE x.oid = CASE WHEN was_distributed THEN (SELECT min(inhrelid) FROM pg_inherits WHERE inhparent = rel) ELSE rel END;

	SELECT coalesce(string_agg(format(E'CREATE SEQUENCE %I.%I %s;\n', n.nspname, s.relname,
			payshard.sequence_options(q.sequence, (floors->>q.column_name)::bigint, node, was_distributed)), ''), '')
		INTO ddl
		FROM payshard.table_sequences(rel) q JOIN pg_class s ON s.oid = q.sequence
			JOIN pg_namespace n ON n.oid = s.relnamespace
		WHERE NOT q.is_identity;

	ddl := ddl || format('CREATE TABLE %s (%s%s)%s;', t,
		(SELECT string_agg(format('%I %s%s%s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
				CASE a.attcompression WHEN 'p' THEN ' COMPRESSION pglz' WHEN 'l' THEN ' COMPRESSION lz4' ELSE '' END,
				CASE WHEN a.attcollation <> y.typcollation AND a.attcollation <> 0 THEN
					(SELECT format(' COLLATE %I.%I', n.nspname, l.collname) FROM pg_collation l
						JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation) ELSE '' END,
				CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
				CASE WHEN a.attidentity <> '' THEN
					(SELECT format(' GENERATED %s AS IDENTITY (SEQUENCE NAME %I.%I %s)',
							CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, n.nspname, s.relname,
							regexp_replace(payshard.sequence_options(q.sequence, (floors->>q.column_name)::bigint,
								node, was_distributed), '^AS \S+ ', ''))
						FROM payshard.table_sequences(rel) q JOIN pg_class s ON s.oid = q.sequence
							JOIN pg_namespace n ON n.oid = s.relnamespace
						WHERE q.is_identity AND q.column_name = a.attname)
					WHEN a.attgenerated = 's' THEN format(' GENERATED ALWAYS AS (%s) STORED', pg_get_expr(d.adbin, rel))
					WHEN d.adbin IS NOT NULL THEN ' DEFAULT ' || pg_get_expr(d.adbin, rel) ELSE '' END),
				', ' ORDER BY a.attnum)
			FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
				LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
			WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped),
		(SELECT coalesce(string_agg(format(', CONSTRAINT %I %s', k.conname, pg_get_constraintdef(k.oid)), ''
				ORDER BY position(k.contype IN 'pucf'), k.conname), '')
			FROM pg_constraint k
			WHERE k.conrelid = rel AND k.conparentid = 0 AND k.contype IN ('p', 'u', 'c', 'f')),
		CASE WHEN plain THEN options ELSE format(' PARTITION BY HASH (%s)',
			(SELECT string_agg(quote_ident(k), ', ' ORDER BY n) FROM unnest(key_columns) WITH ORDINALITY u(k, n))) END);

	-- on a partitioned table they say ON ONLY, and reach partitions made after them
	ddl := ddl || coalesce((SELECT string_agg(E'\n' || CASE WHEN plain THEN
				replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON ') ELSE pg_get_indexdef(i.indexrelid) END || ';', ''
				ORDER BY i.indexrelid)
			FROM pg_index i
			WHERE i.indrelid = rel AND NOT EXISTS
				(SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = rel AND k.contype IN ('p', 'u', 'x'))), '');
	IF NOT plain THEN
		ddl := ddl || (SELECT string_agg(format(E'\nCREATE TABLE payshard_data.%1$I PARTITION OF %2$s FOR VALUES WITH (MODULUS %3$s, REMAINDER %4$s)%5$s;\nALTER TABLE payshard_data.%1$I OWNER TO %6$s;',
				partitions || '_' || s, t, shards, s, options, owner), '' ORDER BY s)
			FROM generate_series(0, shards - 1) s);
	END IF;

	ddl := ddl || coalesce((SELECT string_agg(format(E'\nALTER SEQUENCE %I.%I OWNED BY %s.%I;', n.nspname, s.relname, t, q.column_name), '')
		FROM payshard.table_sequences(rel) q JOIN pg_class s ON s.oid = q.sequence
			JOIN pg_namespace n ON n.oid = s.relnamespace
		WHERE NOT q.is_identity), '');
	ddl := ddl || format(E'\nALTER TABLE %s OWNER TO %s;', t, owner);
	ddl := ddl || coalesce((SELECT string_agg(
			CASE WHEN a.attstorage <> y.typstorage THEN format(E'\nALTER TABLE %s ALTER COLUMN %I SET STORAGE %s;', t, a.attname,
				CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END) ELSE '' END ||
			CASE WHEN a.attstattarget >= 0 THEN format(E'\nALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s;', t, a.attname, a.attstattarget) ELSE '' END ||
			CASE WHEN a.attoptions IS NOT NULL THEN format(E'\nALTER TABLE %s ALTER COLUMN %I SET (%s);', t, a.attname, array_to_string(a.attoptions, ', ')) ELSE '' END, '')
		FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
		WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped), '');
	RETURN ddl;
END $$;
COMMENT ON FUNCTION payshard.table_ddl_before IS 'DDL that makes a table like this one, distributed or plain, on a node: what must be there before its rows';

-- What comes after the rows: triggers must not fire for rows that are only moved.
CREATE FUNCTION payshard.table_ddl_after(rel regclass, partitions text, shards int, plain boolean) RETURNS text
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET intervalstyle = postgres
	SET extra_float_digits = 3 AS $$
DECLARE
	c pg_class;
	t text;
	ddl text := '';
BEGIN
	SELECT * INTO c FROM pg_class WHERE oid = rel;
	SELECT format('%I.%I', n.nspname, c.relname) INTO t FROM pg_namespace n WHERE n.oid = c.relnamespace;
	ddl := coalesce((SELECT string_agg(pg_get_statisticsobjdef(oid) || E';\n', '') FROM pg_statistic_ext WHERE stxrelid = rel), '');
	ddl := ddl || coalesce((SELECT string_agg(pg_get_triggerdef(g.oid) || E';\n' ||
				CASE g.tgenabled WHEN 'O' THEN '' ELSE format(E'ALTER TABLE %s %s TRIGGER %I;\n', t,
					CASE g.tgenabled WHEN 'A' THEN 'ENABLE ALWAYS' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'DISABLE' END, g.tgname) END,
				'' ORDER BY g.tgname)
		FROM pg_trigger g
		WHERE g.tgrelid = rel AND NOT g.tgisinternal AND g.tgname NOT LIKE 'zz\_payshard\_capture%'), '');
	IF NOT plain THEN
		ddl := ddl || format(E'CREATE TRIGGER zz_payshard_capture AFTER INSERT OR UPDATE OR DELETE ON %1$s FOR EACH ROW EXECUTE FUNCTION payshard.capture();\nALTER TABLE %1$s ENABLE ALWAYS TRIGGER zz_payshard_capture;\n', t);
		ddl := ddl || (SELECT string_agg(format(E'CREATE TRIGGER zz_payshard_capture_truncate AFTER TRUNCATE ON payshard_data.%1$I FOR EACH STATEMENT EXECUTE FUNCTION payshard.capture_truncate();\nALTER TABLE payshard_data.%1$I ENABLE ALWAYS TRIGGER zz_payshard_capture_truncate;\n',
				partitions || '_' || s), '' ORDER BY s)
			FROM generate_series(0, shards - 1) s);
	END IF;
	ddl := ddl || coalesce((SELECT string_agg(format(E'CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s;\n', p.polname, t,
				CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
				CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
				(SELECT string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ') FROM unnest(p.polroles) r),
				' USING (' || pg_get_expr(p.polqual, rel) || ')', ' WITH CHECK (' || pg_get_expr(p.polwithcheck, rel) || ')'), ''
			ORDER BY p.polname)
		FROM pg_policy p WHERE p.polrelid = rel), '');
	ddl := ddl || CASE WHEN c.relrowsecurity THEN format(E'ALTER TABLE %s ENABLE ROW LEVEL SECURITY;\n', t) ELSE '' END
		|| CASE WHEN c.relforcerowsecurity THEN format(E'ALTER TABLE %s FORCE ROW LEVEL SECURITY;\n', t) ELSE '' END;

	IF c.relacl IS NOT NULL THEN
		ddl := ddl || format(E'REVOKE ALL ON TABLE %s FROM PUBLIC, %I;\n', t, pg_get_userbyid(c.relowner))
			|| payshard.ddl_grants('TABLE', t, c.relacl, c.relowner, NULL);
	END IF;
	ddl := ddl || coalesce((SELECT string_agg(payshard.ddl_grants('TABLE', t, a.attacl, c.relowner, a.attname), '')
		FROM pg_attribute a WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped AND a.attacl IS NOT NULL), '');
	ddl := ddl || coalesce((SELECT string_agg(payshard.ddl_grants('SEQUENCE', format('%I.%I', n.nspname, s.relname), s.relacl, s.relowner, NULL), '')
		FROM payshard.table_sequences(rel) q JOIN pg_class s ON s.oid = q.sequence JOIN pg_namespace n ON n.oid = s.relnamespace
		WHERE s.relacl IS NOT NULL), '');
	ddl := ddl || coalesce((SELECT string_agg(format(E'COMMENT ON %s IS %L;\n', o.what, o.text), '' ORDER BY o.what)
		FROM (
			SELECT 'TABLE ' || t, obj_description(rel, 'pg_class')
			UNION ALL
			SELECT format('COLUMN %s.%I', t, a.attname), col_description(rel, a.attnum)
				FROM pg_attribute a WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped
			UNION ALL
			SELECT format('CONSTRAINT %I ON %s', k.conname, t), obj_description(k.oid, 'pg_constraint')
				FROM pg_constraint k WHERE k.conrelid = rel AND k.conparentid = 0
			UNION ALL
			SELECT format('INDEX %I.%I', n.nspname, x.relname), obj_description(x.oid, 'pg_class')
				FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace
				WHERE i.indrelid = rel
			UNION ALL
			SELECT format('SEQUENCE %I.%I', n.nspname, x.relname), obj_description(x.oid, 'pg_class')
				FROM payshard.table_sequences(rel) q JOIN pg_class x ON x.oid = q.sequence JOIN pg_namespace n ON n.oid = x.relnamespace
			UNION ALL
			SELECT format('TRIGGER %I ON %s', g.tgname, t), obj_description(g.oid, 'pg_trigger')
				FROM pg_trigger g WHERE g.tgrelid = rel AND NOT g.tgisinternal
			UNION ALL
			SELECT format('POLICY %I ON %s', p.polname, t), obj_description(p.oid, 'pg_policy')
				FROM pg_policy p WHERE p.polrelid = rel
		) o(what, text) WHERE o.text IS NOT NULL), '');
	RETURN ddl;
END $$;
COMMENT ON FUNCTION payshard.table_ddl_after IS 'DDL that makes a table like this one, distributed or plain, on a node: what must come after its rows';

CREATE FUNCTION payshard.create_distributed_table(relation regclass, VARIADIC key_columns text[]) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_create_distributed_table';
COMMENT ON FUNCTION payshard.create_distributed_table IS 'distributes a table, empty or with rows, over the nodes by the hash of its key columns; its numbering sequences then step by 64 times their increment, each node in its own residue class, so that numbers stay unique over all nodes';

CREATE FUNCTION payshard.undistribute_table(relation regclass) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_undistribute_table';
COMMENT ON FUNCTION payshard.undistribute_table IS 'makes a distributed table an ordinary one on this node, with all its rows, and drops it on the others';

CREATE FUNCTION payshard.shard_for(relation regclass, VARIADIC key "any") RETURNS int
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'payshard_shard_for';
COMMENT ON FUNCTION payshard.shard_for IS 'the shard of a key of a distributed table';

CREATE FUNCTION payshard.nodes_for(shard int, OUT node text, OUT is_primary boolean, OUT state text) RETURNS SETOF record
	LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'payshard_nodes_for';
COMMENT ON FUNCTION payshard.nodes_for(int) IS 'the nodes that hold a shard, the primary first';
CREATE FUNCTION payshard.nodes_for(relation regclass, VARIADIC key "any", OUT node text, OUT is_primary boolean, OUT state text) RETURNS SETOF record
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'payshard_nodes_for';
COMMENT ON FUNCTION payshard.nodes_for(regclass, "any") IS 'the nodes that hold the shard of a key, the primary first';

REVOKE ALL ON FUNCTION payshard.peer_ddl_begin, payshard.peer_ddl_outcome, payshard.peer_ddl, payshard.peer_acked_seq, payshard.peer_register,
	payshard.peer_unregister, payshard.peer_load, payshard.peer_rows, payshard.table_sequences, payshard.sequence_floors,
	payshard.sequence_options, payshard.ddl_grants, payshard.table_ddl_before, payshard.table_ddl_after FROM PUBLIC;
