# Who asks for what cannot be is told so, by SQLSTATE, message, detail and hint,
# and everything is as it was.
#
# Each call is made on servers whose state is compared before and after: epoch
# and map, identity, foreign servers and user mappings, tables and their
# partitions, what is noted as dirty, prepared transactions; on members and on
# servers that were to become one.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use PayshardCluster;
use PostgreSQL::Test::Utils ();
use Test::More;

my $c = PayshardCluster->new(nodes => 3, create => 0, shards => 8, replicas => 2, witness => [3], zones => [ 'a', 'b', 'c', 'd' ]);
my @servers = 1 .. 3;

my $catalogs = q{
	SELECT 'servers', (SELECT string_agg(s.oid || ' ' || s.srvname || ' ' || coalesce(s.srvoptions::text, ''), '; ' ORDER BY s.oid)
		FROM pg_foreign_server s)
	UNION ALL SELECT 'mappings', (SELECT string_agg(umuser || ' ' || umserver || ' ' || coalesce(umoptions::text, ''), '; ' ORDER BY oid) FROM pg_user_mapping)
	UNION ALL SELECT 'relations', (SELECT string_agg(c.oid || ' ' || c.relname || ' ' || c.relkind::text || c.relpersistence::text || ' ' || coalesce(c.relacl::text, ''),
		'; ' ORDER BY c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname IN ('public', 'payshard_data') OR n.nspname LIKE 'payshard\_old%')
	UNION ALL SELECT 'schemas', (SELECT string_agg(nspname, ' ' ORDER BY oid) FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp')
	UNION ALL SELECT 'prepared', (SELECT string_agg(gid, ' ') FROM pg_prepared_xacts)
	UNION ALL SELECT 'extension', (SELECT extversion FROM pg_extension WHERE extname = 'payshard')};
my $own_tables = q{
	SELECT 'map', (SELECT md5(string_agg(epoch || encode(value, 'hex'), ' ')) FROM payshard.chosen_map)
		|| ' ' || (SELECT count(*) FROM payshard.map_history)
	UNION ALL SELECT 'vote', (SELECT string_agg(cluster_id || ' ' || md5(value), ' ') FROM payshard.acceptor)
	UNION ALL SELECT 'self', (SELECT string_agg(cluster_id || ' ' || node_id || ' ' || name || ' ' || boot, ' ') FROM payshard.node_self)
	UNION ALL SELECT 'distributed', (SELECT string_agg(t::text, '; ' ORDER BY table_id) FROM payshard.distributed_table t)
	UNION ALL SELECT 'notes', (SELECT count(*)::text FROM payshard.dirty_key) || ' ' || (SELECT count(*) FROM payshard.full_copy WHERE reason <> 'not held')
		|| ' ' || (SELECT count(*) FROM payshard.ddl_log)};

# In one session: of a server without the extension only what the catalogs say.
sub state_of
{
	my ($i) = @_;
	return $c->is_running($i) ? $c->sql($i, "$catalogs;\n"
		  . q{SELECT count(*) > 0 AS has_extension FROM pg_extension WHERE extname = 'payshard' \gset}
		  . "\n\\if :has_extension\n$own_tables;\n\\endif\n") : 'down';
}

sub state_of_all
{
	return join "\n", map { "server $_:\n" . state_of($_) } @servers;
}

# Waits until all three members have started, have the same map, and nothing is to be done.
sub settle
{
	$c->wait_until('the members to agree', 60, sub {
			my @seen = map { my ($status, $out) = $c->try_sql($_,
					q{SELECT payshard.incarnation() > 0, (SELECT epoch FROM payshard.chosen_map), (SELECT bool_and(leader IS NULL) FROM payshard.nodes),
					(SELECT bool_and(state = 'in_sync') FROM payshard.placements), (SELECT count(*) FROM payshard.full_copy WHERE reason <> 'not held')
					+ (SELECT count(*) FROM payshard.dirty_key)
					+ abs((SELECT count(*) FROM payshard.full_copy WHERE reason = 'not held') - 8 + (SELECT count(*) FROM payshard.placements p
						WHERE p.node = (SELECT name FROM payshard.node_self))), (SELECT array_agg(incarnation ORDER BY node_id) FROM payshard.nodes)});
				$out } 1 .. 3;
			my $equal = $seen[0] eq $seen[1] && $seen[0] eq $seen[2] && $seen[0] =~ /^t\|\d+\|t\|t\|0\|/;
			my @own = map { my ($status, $out) = $c->try_sql($_, 'SELECT payshard.incarnation()'); $out } 1 .. 3;
			return ($equal && index($seen[0], '{' . join(',', @own) . '}') >= 0, "@seen");
		});
	return;
}

# refused(i, sql, name => ..., sqlstate, message, detail, hint): the call on server i
# ends with exactly these, and nothing has changed anywhere.
sub refused
{
	my ($i, $sql, $name, $sqlstate, $message, $detail, $hint, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	subtest "$name: $sqlstate" => sub {
		my $before = state_of_all();
		my ($status, $out, $err) = $c->node($i)->psql($options{database} // 'postgres', $sql,
			stdout => \my $stdout, stderr => \my $stderr, on_error_stop => 1, timeout => 90,
			extra_params => [ '-v', 'VERBOSITY=verbose' ]);
		my $text = $stderr // '';
		my ($state, $primary) = $text =~ /(?:ERROR|FATAL):  (\w{5}): (.*)/;
		my ($told_detail) = $text =~ /^DETAIL:  (.*)/m;
		my ($told_hint) = $text =~ /^HINT:  (.*)/m;
		is($state, $sqlstate, 'SQLSTATE');
		like($primary // '', $message, 'message');
		like($told_detail // '(none)', $detail, 'detail');
		like($told_hint // '(none)', $hint, 'hint');
		like($text, $options{context}, 'context') if $options{context};
		is(state_of_all(), $before, 'everything is as it was') unless $options{cannot_compare};
		diag($text) unless defined $state && $state eq $sqlstate;
	};
	return;
}

my $none = qr/^\(none\)$/;
my $free_port = PostgreSQL::Test::Cluster::get_free_port();
my $superusers = qr/^Only superusers change a payshard cluster\.$/;
my $long = 'z' x 100;

sub own { return PayshardCluster::quote($c->conninfo($_[0])); }

# A user with a password, for whom "trust" does not hold.
foreach my $i (@servers)
{
	my $hba = $c->node($i)->data_dir . '/pg_hba.conf';
	my $content = PostgreSQL::Test::Utils::slurp_file($hba);
	open my $file, '>', $hba or die "could not write $hba: $!";
	print $file "host all secretive 127.0.0.1/32 scram-sha-256\n$content";
	close $file;
	$c->sql($i, q{CREATE ROLE secretive SUPERUSER LOGIN PASSWORD 'right'; CREATE ROLE nobody LOGIN; CREATE ROLE somebody LOGIN});
	$c->node($i)->reload;
}

# ------------------------------------------------- before there is a cluster

my $no_cluster = qr/^this database is not a node of a payshard cluster$/;
refused(1, "SELECT payshard.add_node('n2', 'host=x')", 'add_node without a cluster', '55000', $no_cluster, $none, qr/create_cluster/);
refused(1, "SELECT payshard.failover('n2')", 'failover without a cluster', '55000', $no_cluster, $none, qr/create_cluster/);

foreach my $case (
	[ 'shards => 12', 'not a power of two', '22023', qr/12 shards and 2 replicas cannot be created/, qr/not a power of two\.$/, qr/power of two, 1 to 1024/ ],
	[ 'shards => 0', 'no shards', '22023', qr/0 shards/, qr/^The number of shards is out of range\.$/, qr/power of two/ ],
	[ 'shards => 2048', 'too many shards', '22023', qr/2048 shards/, qr/^The number of shards is out of range\.$/, qr/1 to 1024/ ],
	[ 'replicas => 0', 'no replicas', '22023', qr/0 replicas/, qr/^The number of copies is out of range\.$/, qr/Replicas: 1 to 8/ ],
	[ 'replicas => 9', 'too many replicas', '22023', qr/9 replicas/, qr/^The number of copies is out of range\.$/, qr/Replicas: 1 to 8/ ],
	[ 'load_percent => 99', 'a bound on load below the fair share', '22023', qr/cannot be created/, qr/^The bound on load is out of range\.$/, qr/Load: 100 to/ ],
	[ 'weight => -1', 'negative weight', '22003', qr/^weight -1 is out of range$/, qr/0 \(a witness\) to/, qr/relative/ ],
	[ "node => ''", 'no name', '22023', qr/^"" cannot be the name of a node$/, qr/1 to \d+ bytes/, qr/shorter/ ],
	[ "node => '$long'", 'a long name', '22023', qr/cannot be the name of a node$/, qr/1 to \d+ bytes/, qr/shorter/ ],
	[ "zone => '$long'", 'a long zone', '22023', qr/cannot be the name of a zone$/, qr/at most \d+ bytes/, qr/shorter/ ],
	[ "conninfo => 'colour=red'", 'no connection string', '22023', qr/^"colour=red" is not a connection string$/, qr/invalid connection option "colour"/, qr/For example/ ],
	[ "conninfo => 'host=127.0.0.1 port=$free_port'", 'a port where nobody listens', '08001', qr/^node "n1" cannot be reached$/, qr/Connection refused/, qr/Check the connection string/ ],
	[ "conninfo => '" . $c->conninfo(1) . "x'", 'an unknown database', '3D000', qr/^node "n1" cannot be reached$/, qr/database "postgresx" does not exist/, qr/Check the connection string/ ],
	[ "conninfo => '" . $c->conninfo(1) . " user=secretive password=wrong'", 'a wrong password', '28P01', qr/^node "n1" cannot be reached$/, qr/FATAL:  password authentication failed for user "secretive"$/, qr/the password/ ],
	[ "conninfo => '" . $c->conninfo(1) . " user=somebody'", 'a role that is no peer', '42501', qr/^role "somebody" may not do what nodes ask/, qr/node "n1"/, qr/grant_peer/ ],
	[ 'conninfo => ' . own(2), 'another server', '22023', qr/^the connection string of node "n1" leads to another database$/, qr/system identifier \d+/, qr/this one too/ ])
{
	my ($arguments, $name, @wanted) = @$case;
	$arguments .= ', conninfo => ' . own(1) unless $arguments =~ /conninfo/;
	refused(1, "SELECT payshard.create_cluster('pay', $arguments)", "create_cluster: $name", @wanted);
}
refused(1, "SELECT payshard.create_cluster('', conninfo => " . own(1) . ')', 'create_cluster: a cluster without a name', '22023',
	qr/^"" cannot be the name of a cluster$/, qr/1 to \d+ bytes/, qr/shorter/);

$c->sql(1, 'CREATE DATABASE other');
$c->node(1)->safe_psql('other', 'CREATE EXTENSION payshard');
refused(1, "SELECT payshard.create_cluster('pay')", 'create_cluster: in another database than payshard.database', '55000',
	qr/another value of payshard\.database/, qr/^It is "postgres"\.$/, qr/payshard\.database = 'other'/, database => 'other');

# Settings with which a server cannot be a node; as new members below, too.
my @settings = (
	[ 'fsync', 'off', 'on', qr/another value of fsync on this server$/, qr/^It is off\.$/, qr/Set fsync = on in postgresql\.conf/ ],
	[ 'max_prepared_transactions', '0', '100', qr/another value of max_prepared_transactions/, qr/^It is 0\.$/, qr/max_prepared_transactions = 100/ ],
	[ 'max_worker_processes', '4', '32', qr/another value of max_worker_processes/, qr/^It is 4\.$/, qr/max_worker_processes = 16/ ]);

sub with_setting
{
	my ($i, $name, $value) = @_;
	$c->node($i)->append_conf('postgresql.conf', "$name = $value\n");
	$c->restart($i);
	return;
}
foreach my $setting (@settings)
{
	my ($name, $bad, $good, @wanted) = @$setting;
	with_setting(1, $name, $bad);
	refused(1, "SELECT payshard.create_cluster('pay', conninfo => " . own(1) . ')', "create_cluster: $name = $bad", '55000', @wanted);
	with_setting(1, $name, $good);
}

# Not preloaded: not even the extension.
my $plain = $c->{nodes} + 1;
$c->new_server;
$c->sql($plain, 'DROP EXTENSION payshard');
with_setting($plain, 'shared_preload_libraries', "''");
refused($plain, 'CREATE EXTENSION payshard', 'CREATE EXTENSION: not preloaded', '55000', qr/^payshard must be loaded when the server starts$/,
	qr/memory/, qr/shared_preload_libraries = 'payshard'/);
with_setting($plain, 'shared_preload_libraries', "'payshard'");

# ----------------------------------------------------- the first node alone

$c->{nodes} = 1;
$c->create_cluster;
refused(1, "SELECT payshard.create_cluster('pay')", 'create_cluster twice', '42710', qr/already node "n1" of a payshard cluster/, qr/one cluster/, qr/DROP EXTENSION/);
$c->sql(1, 'CREATE TABLE account (id bigint PRIMARY KEY, balance numeric)');
refused(1, "SELECT payshard.create_distributed_table('account', 'id')", 'two copies on one node', '55000',
	qr/too few nodes for 2 copies/, qr/^The cluster has 1 node with weight\.$/, qr/add_node/);

# -------------------------------------------------------- who is to be added

my $new = $plain;    # the server that is to be node 4, or whoever
push @servers, $new;
$c->{nodes} = 4;
$c->add_node(2);
$c->add_node(3, weight => 0);
settle();

sub add_refused
{
	my ($arguments, $name, @wanted) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	refused(1, "SELECT payshard.add_node($arguments)", "add_node: $name", @wanted);
	return;
}
my $unreachable = qr/^node "n4" cannot be reached$/;
my $check = qr/Check the connection string, pg_hba\.conf and the password/;
my $at_new = $c->conninfo($new);
add_refused("'', 'host=x'", 'no name', '22023', qr/cannot be the name of a node/, qr/1 to/, qr/shorter/);
add_refused("'$long', 'host=x'", 'a long name', '22023', qr/cannot be the name of a node/, qr/1 to/, qr/shorter/);
add_refused("'n4', '$at_new', zone => '$long'", 'a long zone', '22023', qr/cannot be the name of a zone/, qr/at most/, qr/shorter/);
add_refused("'n4', '$at_new', weight => -1", 'a negative weight', '22003', qr/^weight -1 is out of range/, qr/witness/, qr/relative/);
add_refused("'n4', '$at_new', weight => 1000000", 'a weight too large', '22003', qr/^weight 1000000 is out of range/, qr/witness/, qr/relative/);
add_refused("'n4', 'colour=red'", 'no connection string', '22023', qr/is not a connection string/, qr/"colour"/, qr/For example/);
add_refused("'n4', 'host=127.0.0.1 port=$free_port'", 'nobody listens there', '08001', $unreachable, qr/Connection refused/, $check);
add_refused("'n4', '$at_new user=secretive password=wrong'", 'a wrong password', '28P01', $unreachable,
	qr/FATAL:  password authentication failed for user "secretive"/, $check) if $c->sql($new,
	"CREATE ROLE secretive SUPERUSER LOGIN PASSWORD 'right'; CREATE ROLE somebody LOGIN; SELECT pg_reload_conf()") && hba($new);
add_refused("'n4', '${at_new}x'", 'an unknown database', '3D000', $unreachable, qr/"postgresx" does not exist/, $check);
add_refused("'n4', '$at_new user=stranger'", 'an unknown role', '28000', $unreachable, qr/role "stranger" does not exist/, $check);
add_refused("'n4', '$at_new'", 'the extension is not there', '55000', qr/extension payshard is not installed on node "n4"/, qr/does not have it/, qr/CREATE EXTENSION payshard/);
$c->sql($new, 'CREATE EXTENSION payshard');
add_refused("'n4', '$at_new user=somebody'", 'a role that may not', '42501', qr/permission denied for/, $none, $none);
$c->sql($new, q{UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'payshard'});
add_refused("'n4', '$at_new'", 'another version', '55000', qr/^node "n4" has another version of payshard$/, qr/^It has 0\.9, this node has 1\.0\.$/, qr/ALTER EXTENSION payshard UPDATE/);
$c->sql($new, q{UPDATE pg_extension SET extversion = '1.0' WHERE extname = 'payshard'});
$c->sql($new, q{CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'});
$c->node($new)->safe_psql('latin', 'CREATE EXTENSION payshard');
(my $at_latin = $at_new) =~ s/dbname=\w+/dbname=latin/;
add_refused("'n4', '$at_latin'", 'another encoding', '55000', qr/^node "n4" has another encoding or locale$/, qr/^It has LATIN1, .*; this node has UTF8/, qr/TEMPLATE template0/);
foreach my $setting (@settings)
{
	my ($name, $bad, $good, @wanted) = @$setting;
	with_setting($new, $name, $bad);
	add_refused("'n4', '$at_new'", "$name = $bad there", '55000', @wanted, context => qr/^CONTEXT:  node "n4"/m);
	with_setting($new, $name, $good);
}
add_refused("'n2', " . own(2), 'a node that is there', '42710', qr/^node "n2" is in the cluster already$/, qr/leads to that node itself/, qr/CREATE EXTENSION/);
add_refused("'n9', " . own(2), 'a node under another name', '42710', qr/^the database of node "n9" is node "n2" already$/, qr/under one name/, qr/payshard\.nodes/);
add_refused("'n9', " . own(1), 'itself under another name', '42710', qr/^the database of node "n9" is node "n1" already$/, qr/under one name/, qr/payshard\.nodes/);
add_refused("'n3', '$at_new'", 'a name whose node answers', '42710', qr/^node "n3" is in the cluster already$/, qr/^It answers/, qr/another name/);

# What fails when half is done, is undone: the new node cannot take the invitation.
$c->sql($new, 'ALTER FUNCTION payshard.peer_invite RENAME TO peer_invite_away');
add_refused("'n4', '$at_new'", 'the invitation fails', '42883', qr/payshard\.peer_invite/, $none, qr/No function matches/);
$c->sql($new, 'ALTER FUNCTION payshard.peer_invite_away RENAME TO peer_invite');
$c->sql(2, 'ALTER FUNCTION payshard.peer_define RENAME TO peer_define_away');
add_refused("'n4', '$at_new'", 'one member cannot learn of it', '42883', qr/payshard\.peer_define/, $none, qr/No function matches/);
$c->sql(2, 'ALTER FUNCTION payshard.peer_define_away RENAME TO peer_define');
$c->stop(3);
add_refused("'n4', '$at_new'", 'a member is down', '08006', qr/^node "n3" cannot be reached$/, qr/learn how to reach node "n4"/, qr/All nodes must be up/);
$c->start(3);
settle();

$c->sql($new, "SELECT payshard.create_cluster('else', replicas => 1, node => 'e1', conninfo => '$at_new')");
$c->wait_started($new);
add_refused("'n4', '$at_new'", 'a node of another cluster', '42710', qr/belongs to another payshard cluster$/, qr/node "e1" there/, qr/DROP EXTENSION/);

# ------------------------------------------------------------- nodes as they are

my @nodes_are = (qr/^The nodes of this cluster are: n1, n2, n3\.$/, qr/payshard\.nodes/);
my $no_node = qr/^there is no node "n7"$/;
refused(1, "SELECT payshard.$_", "$_: unknown node", '42704', $no_node, @nodes_are)
  foreach "remove_node('n7')", "set_node('n7', weight => 2)", "failover('n7')", "rebuild_node('n7')";
refused(1, "SELECT payshard.set_node('n2', weight => -1)", 'set_node: a negative weight', '22003', qr/^weight -1 is out of range/, qr/witness/, qr/relative/);
refused(1, "SELECT payshard.set_node('n2', zone => '$long')", 'set_node: a long zone', '22023', qr/cannot be the name of a zone/, qr/at most/, qr/shorter/);
refused(1, "SELECT payshard.remove_node('n2')", 'remove_node: no other place', '55000', qr/^node "n2" cannot be removed: its copies have no other place$/, qr/^Each shard has 2 copies\. .*without it: 1\.$/, qr/add_node/);
refused(3, "SELECT payshard.remove_node('n3')", 'remove_node: itself', '55000', qr/^node "n3" cannot remove itself$/, qr/would not learn/, qr/on another node/);
refused(1, "SELECT payshard.failover('n2')", 'failover: healthy, without force', '55000', qr/^node "n2" is healthy$/, qr/answers with its current incarnation \d+\./, qr/force => true/);
refused(1, "SELECT payshard.failover('n1')", 'failover: itself', '55000', qr/^node "n1" cannot be failed over from itself$/, qr/not lost/, qr/another node/);
refused(1, "SELECT payshard.rebuild_node('n3')", 'rebuild_node: a witness', '55000', qr/^node "n3" cannot be rebuilt now$/, qr/of no shard/, qr/placements/);

# ----------------------------------------------------------------------- tables

my ($status, $out, $err) = $c->try_sql(1, q{SELECT payshard.set_node('n1', zone => 'b'); INSERT INTO account SELECT g, g FROM generate_series(1, 100) g; SELECT payshard.create_distributed_table('account', 'id')});
is($status, 0, 'fewer zones than copies: a table can be distributed') or diag($err);
like($err, qr/WARNING:  01000: there are fewer zones than copies of each shard \(2\)\nDETAIL:  The nodes with weight are in 1 zone: .*\nHINT:  .*set_node/, '... with a warning that says what is lost with a zone');
$c->sql(1, "SELECT payshard.set_node('n1', zone => 'a')");
($status, $out, $err) = $c->try_sql(1, q{CREATE TABLE zoned (k int PRIMARY KEY); SELECT payshard.create_distributed_table('zoned', 'k')});
unlike($err, qr/WARNING/, 'enough zones: no warning');

$c->sql(1, q{
	CREATE TABLE plain (k bigint PRIMARY KEY, v text);
	INSERT INTO plain SELECT g, 'v' || g FROM generate_series(1, 100) g;
	CREATE TABLE child () INHERITS (plain);
	CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
	CREATE TABLE loosely (k text COLLATE loose PRIMARY KEY);
	CREATE TABLE two (k bigint PRIMARY KEY, v text);
	INSERT INTO two SELECT g, 'v' || g FROM generate_series(1, 100) g;
	CREATE TABLE keyless (k bigint);
	CREATE UNLOGGED TABLE unlogged (k bigint PRIMARY KEY);
	CREATE TABLE ruled (k bigint PRIMARY KEY);
	CREATE RULE nothing AS ON DELETE TO ruled DO INSTEAD NOTHING;
	CREATE TABLE excluding (k int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&));
	CREATE TABLE regs (k int PRIMARY KEY, c regclass)});
foreach my $case (
	[ "'two', 'nothing'", 'key column missing', '42703', qr/^column "nothing" of table "two" does not exist$/, qr/distribution key/, qr/^Its columns are: k, v\.$/ ],
	[ "'two', 'v'", 'key column not in the primary key', '42P10', qr/^primary key "two_pkey" does not contain the distribution key$/, qr/^Column "v" is missing in it/, qr/Add the key columns to it/ ],
	[ "'two', 'k', 'k'", 'key column twice', '42701', qr/appears twice/, qr/The key is \(k, k\)/, qr/once/ ],
	[ "'two', VARIADIC '{}'::text[]", 'no key column', '22023', qr/1 to 4 columns/, qr/There are 0/, qr/Name the columns/ ],
	[ "'loosely', 'k'", 'nondeterministic collation', '42P21', qr/^column "k" cannot be a distribution key$/, qr/collation "loose" is not deterministic/, qr/deterministic collation/ ],
	[ "'account', 'id'", 'distributed already', '42710', qr/^table "account" is distributed already$/, qr/^Its key is \(id\)\.$/, qr/undistribute_table/ ],
	[ "'plain', 'k'", 'has a child', '0A000', qr/^table "plain" cannot be distributed$/, qr/inherits/, qr/NO INHERIT/ ],
	[ "'child', 'k'", 'is a child', '0A000', qr/^table "child" cannot be distributed$/, qr/inherits/, qr/NO INHERIT/ ],
	[ "'keyless', 'k'", 'no primary key', '42P16', qr/^table "keyless" has no primary key$/, qr/replicated by its primary key/, qr/ADD PRIMARY KEY/ ],
	[ "'unlogged', 'k'", 'unlogged', '0A000', qr/^table "unlogged" cannot be distributed$/, qr/unlogged/, qr/SET LOGGED/ ],
	[ "'ruled', 'k'", 'a rule', '0A000', qr/^table "ruled" cannot be distributed$/, qr/rule "nothing"/, qr/DROP RULE/ ],
	[ "'excluding', 'k'", 'an exclusion constraint', '0A000', qr/^table "excluding" cannot be distributed$/, qr/exclusion constraint/, qr/DROP CONSTRAINT/ ],
	[ "'regs', 'k'", 'a type of one server only', '0A000', qr/^column "c" cannot be in a distributed table$/, qr/regclass/, qr/text/ ],
	[ "'payshard.node_self', 'one'", "one of payshard's own", '0A000', qr/cannot be distributed$/, qr/payshard itself/, qr/tables of users/ ])
{
	my ($arguments, $name, @wanted) = @$case;
	refused(1, "SELECT payshard.create_distributed_table($arguments)", "create_distributed_table: $name", @wanted);
}
refused(1, "SELECT payshard.undistribute_table('two')", 'undistribute_table: an ordinary table', '42809', qr/^"two" is not a distributed table$/, qr/ordinary/, qr/payshard\.tables/);
refused(1, "SELECT payshard.undistribute_table('payshard_data.public_account_0')", 'undistribute_table: a partition', '42809', qr/is not a distributed table$/, qr/partition of one/, qr/payshard\.tables/);
refused(1, "SELECT payshard.nodes_for(8)", 'nodes_for: an unknown shard', '22023', qr/^there is no shard 8$/, qr/^Shards are numbered 0 to 7\.$/, qr/payshard\.shards/);

# Half done and undone: node 2 has such a table; nodes 2 and 3 hold what was made there.
$c->sql(3, 'CREATE TABLE two (other int)');
refused(1, "SELECT payshard.create_distributed_table('two', 'k')", 'create_distributed_table: fails at the last node', '42P07', qr/^table "two" cannot be made on node "n3"$/,
	qr/^There: relation "two" already exists\. Nothing was changed on any node\.$/, qr/the same schema, owner, types/);
$c->sql(1, q{CREATE SCHEMA here_only; CREATE TABLE here_only.t (k int PRIMARY KEY); CREATE TYPE public.mood AS ENUM ('a'); CREATE TABLE moods (k int PRIMARY KEY, m mood);
	CREATE ROLE here_only; CREATE TABLE owned (k int PRIMARY KEY); ALTER TABLE owned OWNER TO here_only});
foreach my $case ([ 'here_only.t', '3F000', 'schema "here_only"' ], [ 'moods', '42704', 'type "public.mood"' ], [ 'owned', '42704', 'role "here_only"' ])
{
	my ($table, $state, $what) = @$case;
	my ($short) = $table =~ /(\w+)$/;
	refused(1, "SELECT payshard.create_distributed_table('$table', 'k')", "create_distributed_table: no $what at another node", $state,
		qr/^table "$short" cannot be made on node "n2"$/, qr/^There: \Q$what\E does not exist\. Nothing was changed on any node\.$/, qr/the same schema, owner, types/);
}
$c->sql(1, 'DROP SCHEMA here_only CASCADE; DROP TABLE moods, owned; DROP TYPE public.mood; DROP ROLE here_only');
$c->sql(3, 'DROP TABLE two');
$c->stop(3);
refused(1, "SELECT payshard.create_distributed_table('two', 'k')", 'create_distributed_table: a node is down', '08006', qr/^node "n3" cannot be reached$/, qr/Connection refused|starting up|shutting/, qr/All nodes must be up/);
refused(1, "SELECT payshard.undistribute_table('account')", 'undistribute_table: a node is down', '08006', qr/^node "n3" cannot be reached$/, qr/Connection refused|starting up|shutting/, qr/All nodes must be up/);
$c->start(3);
settle();
is($c->sql(1, 'SELECT count(*) || md5(string_agg(v, chr(10) ORDER BY k)) FROM two'), $c->sql(1, q{SELECT 100 || md5(string_agg('v' || g, chr(10) ORDER BY g)) FROM generate_series(1, 100) g}), 'its rows are as they were');

# ------------------------------------------------------------- without the right

my %calls = (
	create_cluster => "'x'", add_node => "'n5', 'host=x'", remove_node => "'n2'", set_node => "'n2', weight => 1",
	failover => "'n2'", rebuild_node => "'n2'", verify => '', stat_reset => '', grant_peer => "'nobody'",
	peer_learn => "'x'", peer_prepare => '1, 1', peer_accept => "1, 1, 'x'", peer_turn => 'true', peer_journal => "'x'", peer_hello => "'x'",
	peer_invite => "1, 1, 'x', '[]', 'x'", peer_define => "'x', 'host=x'", peer_ddl => "'SELECT 1', '', ''", peer_register => "1, 'two', '{k}', 'x'",
	peer_unregister => '1', peer_load => "'two', '{}', ''", peer_rows => "'two', 0", peer_copy => "'x'", peer_settle_journal => "1, 1, 1, 'x'",
	peer_tail => '1, 1', peer_take_dirty => "1, 1, 1, 'x'", peer_capture_off => '', peer_ddl_begin => "'g', 'r', 's'", status => '', ring => '');
refused(1, "SET ROLE nobody; SELECT payshard.$_($calls{$_})", "$_ without the right", '42501', qr/^permission denied for function $_$/, $none, $none)
  foreach sort keys %calls;
refused(1, "SET ROLE nobody; SELECT payshard.$_", "$_ by who does not own the table", '42501', qr/^must be owner of table "(?:two|account)"$/, qr/^Its owner is /, qr/as the owner/)
  foreach "create_distributed_table('two', 'k')", "undistribute_table('account')";

# EXECUTE alone does not make one a DBA, or a node.
my @for_dba = qw(create_cluster add_node remove_node set_node failover rebuild_node);
my @for_nodes = qw(peer_ddl peer_register peer_unregister peer_load peer_rows peer_capture_off);
$c->sql(1, "GRANT EXECUTE ON FUNCTION payshard.$_ TO somebody") foreach @for_dba, @for_nodes, qw(peer_invite peer_define grant_peer);
refused(1, "SET ROLE somebody; SELECT payshard.$_($calls{$_})", "$_ with EXECUTE only", '42501', qr/^permission denied for $_$/, qr/^Role "somebody" is no superuser\.$/, $superusers)
  foreach @for_dba, 'peer_invite', 'peer_define';
refused(1, "SET ROLE somebody; SELECT payshard.grant_peer('somebody')", 'grant_peer with EXECUTE only', '42501', qr/^permission denied for grant_peer$/, qr/^Role "somebody" is no superuser\.$/, $superusers);
refused(1, "SET ROLE somebody; SELECT payshard.$_($calls{$_})", "$_ with EXECUTE only", '42501', qr/^permission denied for $_$/, $none, qr/Only nodes call it on each other/)
  foreach @for_nodes;
refused(1, "SET ROLE nobody; SELECT * FROM payshard.$_", "$_ without the right", '42501', qr/^permission denied for (?:view|table) $_$/, $none, $none)
  foreach qw(nodes shards placements tables replication in_doubt events stops incidents availability recovery_stats stat_commits silences leases
  node_self acceptor chosen_map map_history journal distributed_table ddl_log);
refused(1, "CREATE SERVER bad FOREIGN DATA WRAPPER payshard OPTIONS (colour 'red')", 'a server with an unknown option', 'HV00D', qr/^invalid option "colour"$/, $none, qr/Valid options in this context are: .*host/);

# ------------------------------------------------------------------ the last copy

$c->kill9(2);
$c->wait_until('node 2 to be out', 60, sub {
		$c->try_sql(1, 'UPDATE account SET balance = balance + 1 WHERE id <= 20');
		return $c->sql(1, q{SELECT count(*) FROM payshard.placements WHERE node = 'n1' AND state = 'in_sync' AND role = 'primary'}) > 0
		  && $c->sql(1, q{SELECT bool_or(cardinality(in_sync) = 1 AND primary_node = 'n1') FROM payshard.shards}) eq 't';
	});
refused(3, "SELECT payshard.remove_node('n1')", 'remove_node: the last copy', '55000', qr/^node "n1" cannot be removed: its copies have no other place$/, qr/^Each shard has 2 copies\. .*without it: [01]\.$/, qr/add_node/);
refused(3, "SELECT payshard.failover('n1')", 'failover: the last copy', '55000', qr/^failing over node "n1" would lose acknowledged transactions$/, qr/^It holds the only copy in sync of \d+ shards?: \d/, qr/partial => true/);

# Two of three are down: nothing can be decided.
$c->kill9(3);
refused(1, "SELECT payshard.set_node('n2', weight => 2)", 'set_node without a majority', '57P03', qr/^no majority of the payshard nodes agreed on a new map in time$/,
	qr/^1 of 3 nodes answered in \d{4} ms, 2 are needed; not: n2, n3\.$/, qr/Start the nodes that are down/);
refused(1, "SELECT payshard.add_node('n5', 'host=127.0.0.1 port=$free_port')", 'add_node without a majority, nobody there', '08001', qr/^node "n5" cannot be reached$/, qr/Connection refused/, $check);
$c->start(3);
$c->start(2);
$c->wait_all_in_sync(120);
$c->assert_copies_equal;
done_testing();

# Prepends the line for the user with a password, once.
sub hba
{
	my ($i) = @_;
	my $path = $c->node($i)->data_dir . '/pg_hba.conf';
	my $content = PostgreSQL::Test::Utils::slurp_file($path);
	return 1 if $content =~ /secretive/;
	open my $file, '>', $path or die "could not write $path: $!";
	print $file "host all secretive 127.0.0.1/32 scram-sha-256\n$content";
	close $file;
	$c->node($i)->reload;
	return 1;
}
