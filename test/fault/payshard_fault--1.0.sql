\echo Use "CREATE EXTENSION payshard_fault" to load this file. \quit

-- Arms, for the whole server, the count-th passage of a point (src/node/fault.h).
CREATE FUNCTION payshard_fault.arm(point text, action text, count int DEFAULT 1) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_fault_arm';
COMMENT ON FUNCTION payshard_fault.arm IS 'action: error, panic, pause, disconnect; the count-th passage from now acts';

CREATE FUNCTION payshard_fault.disarm(point text) RETURNS boolean
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_fault_disarm';
COMMENT ON FUNCTION payshard_fault.disarm IS 'takes an action back and lets go who is paused there; was it armed?';

CREATE FUNCTION payshard_fault.paused(point text) RETURNS boolean
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_fault_paused';
COMMENT ON FUNCTION payshard_fault.paused IS 'does somebody wait at the point?';

CREATE FUNCTION payshard_fault.armed(point text) RETURNS boolean
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_fault_armed';
COMMENT ON FUNCTION payshard_fault.armed IS 'has the point not acted yet, or does somebody wait there?';

-- Negative controls: a rule of the protocol that is not kept until it is switched on again.
CREATE FUNCTION payshard_fault.switch_off(rule text) RETURNS void
	LANGUAGE sql STRICT AS $$ SELECT payshard_fault.arm(rule, 'off', 1) $$;
COMMENT ON FUNCTION payshard_fault.switch_off IS 'this server no longer keeps the rule (PS_RULE in src)';

CREATE FUNCTION payshard_fault.switch_on(rule text) RETURNS boolean
	LANGUAGE sql STRICT AS $$ SELECT payshard_fault.disarm(rule) $$;
COMMENT ON FUNCTION payshard_fault.switch_on IS 'this server keeps the rule again; was it switched off?';
