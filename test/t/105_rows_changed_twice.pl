# A row that triggers change in the statement that writes it is the same on its copies: the write-set has
# its changes in the order in which they happened, though row triggers see them in another one.
use strict;
use warnings;
use PayshardCluster;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, shards => 4);

# what(name, body of the trigger, when, statements): a table with rows 1 to 8 and a trigger; the statements; equal copies.
my $n = 0;
sub same
{
	my ($name, $when, $body, $expected, @statements) = @_;
	my $t = 't' . ++$n;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$c->sql(1, "CREATE TABLE $t (k int, id int, n int NOT NULL DEFAULT 0, latest boolean NOT NULL DEFAULT true, note text, PRIMARY KEY (k, id))");
	$c->sql(1, "SELECT payshard.create_distributed_table('$t', 'k')");
	$c->sql(1, "INSERT INTO $t (k, id, note) SELECT k, id, repeat('x', 3000) FROM unnest('{1,2,3}'::int[]) k, unnest('{1,2,3}'::int[]) id WHERE k = $_")
	  foreach 1 .. 3;
	$c->sql($_, "CREATE FUNCTION ${t}_f() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN $body END \$\$") foreach 1 .. 3;
	$c->sql(1, "CREATE TRIGGER a $when ON $t FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ${t}_f()");
	$c->sql(1, join(';', map { my $s = $_; $s =~ s/\bt\b/$t/g; $s } @statements));
	my $rows = $c->sql(1, "SELECT string_agg(concat_ws(' ', id, n, latest, left(note, 2)), ', ' ORDER BY id) FROM $t WHERE k = 1");
	is($rows, $expected, "$name: the primary has it");
	is($c->sql(1, "SELECT count(*) FROM payshard.verify() WHERE equal IS NOT TRUE"), '0', '... and its copy');
	is($c->sql($_, 'SELECT count(*) FROM payshard.divergent_rows'), '0', "... with nothing put right on node $_") foreach 1 .. 3;
	return;
}

same('AFTER UPDATE updates the row once more', 'AFTER UPDATE', 'UPDATE t1 SET n = n + 10 WHERE k = NEW.k AND id = NEW.id; RETURN NULL;',
	'1 11 t xx, 2 11 t xx, 3 11 t xx', 'UPDATE t SET n = n + 1 WHERE k = 1');
same('AFTER INSERT updates the new row', 'AFTER INSERT', 'UPDATE t2 SET n = n + 10 WHERE k = NEW.k AND id = NEW.id; RETURN NULL;',
	'1 0 t xx, 2 0 t xx, 3 0 t xx, 4 10 t, 5 10 t', 'INSERT INTO t (k, id) VALUES (1, 4), (1, 5)');
same('AFTER INSERT deletes the new row', 'AFTER INSERT', 'DELETE FROM t3 WHERE k = NEW.k AND id = NEW.id AND id > 4; RETURN NULL;',
	'1 0 t xx, 2 0 t xx, 3 0 t xx, 4 0 t', 'INSERT INTO t (k, id) VALUES (1, 4), (1, 5)');
same('AFTER DELETE takes the key again', 'AFTER DELETE', "INSERT INTO t4 (k, id, note) VALUES (OLD.k, OLD.id, 'again'); RETURN NULL;",
	'1 0 t ag, 2 0 t ag, 3 0 t xx', 'DELETE FROM t WHERE k = 1 AND id < 3');
same('AFTER UPDATE of the key takes the old one again', 'AFTER UPDATE', "INSERT INTO t5 (k, id, note) VALUES (OLD.k, OLD.id, 'again'); RETURN NULL;",
	'1 0 t ag, 2 0 t xx, 3 0 t xx, 11 5 t xx', 'UPDATE t SET id = 11, n = 5 WHERE k = 1 AND id = 1');
same('AFTER UPDATE of the key moves the row on', 'AFTER UPDATE', 'UPDATE t6 SET id = NEW.id + 100 WHERE k = NEW.k AND id = NEW.id; RETURN NULL;',
	'2 0 t xx, 3 0 t xx, 111 5 t xx', 'UPDATE t SET id = 11, n = 5 WHERE k = 1 AND id = 1');
same('BEFORE INSERT changes the rows before it', 'BEFORE INSERT', 'UPDATE t7 SET latest = false WHERE k = NEW.k AND latest; RETURN NEW;',
	'1 0 f xx, 2 0 f xx, 3 0 f xx, 4 0 f, 5 0 f, 6 0 t', 'INSERT INTO t (k, id) VALUES (1, 4), (1, 5), (1, 6)');
same('BEFORE INSERT deletes what is in the way', 'BEFORE INSERT', 'DELETE FROM t8 WHERE k = NEW.k AND id = NEW.id; RETURN NEW;',
	'1 7 t, 2 8 t, 3 0 t xx', 'INSERT INTO t (k, id, n) VALUES (1, 1, 7), (1, 2, 8)');
same('in savepoints, one of them rolled back', 'AFTER UPDATE', <<'SQL', '1 11 t xx, 2 42 t xx, 3 11 t xx',
	BEGIN
		UPDATE t9 SET n = n + 10 WHERE k = NEW.k AND id = NEW.id;
		IF NEW.id = 2 THEN RAISE EXCEPTION 'not this one'; END IF;
	EXCEPTION WHEN raise_exception THEN
		UPDATE t9 SET n = n + 20 WHERE k = NEW.k AND id = NEW.id;
	END;
	RETURN NULL;
SQL
	'BEGIN', 'UPDATE t SET n = n + 1 WHERE k = 1', 'SAVEPOINT s', 'UPDATE t SET n = n + 1 WHERE k = 1', 'ROLLBACK TO s',
	'UPDATE t SET n = n + 1 WHERE k = 1 AND id = 2', 'COMMIT');
same('three times, over many chunks', 'AFTER UPDATE', <<'SQL', join(', ', map { "$_ 111 t xx" } 1 .. 3),
	UPDATE t10 SET n = n + 10 WHERE k = NEW.k AND id = NEW.id;
	UPDATE t10 SET n = n + 100, note = note WHERE k = NEW.k AND id = NEW.id;
	RETURN NULL;
SQL
	'BEGIN', 'INSERT INTO t (k, id, note) VALUES ' . join(', ', map { "(1, $_, repeat('y', 3000))" } 10 .. 90), 'UPDATE t SET n = n + 1 WHERE k = 1',
	'DELETE FROM t WHERE k = 1 AND id >= 10', 'COMMIT');

# The control: in the order in which they were seen.
SKIP: {
	skip 'needs a build with PAYSHARD_FAULTS=1', 1 unless $ENV{PAYSHARD_FAULTS};
	$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1 .. 3;
	$c->sql($_, "SELECT payshard_fault.arm('W1.order', 'off')") foreach 1 .. 3;
	$c->sql(1, 'UPDATE t1 SET n = n + 1 WHERE k = 1');
	isnt($c->sql(1, 'SELECT count(*) FROM payshard.verify() WHERE equal IS NOT TRUE'), '0', 'with the rule W1.order off, copies differ');
}
done_testing();
