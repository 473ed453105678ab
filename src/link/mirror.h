/*
 * mirror.h
 *		What a session at another node must have in common with ours.
 */
#ifndef PS_LINK_MIRROR_H
#define PS_LINK_MIRROR_H

/* One statement, palloc'd, that makes the settings there the same as here. */
extern char *ps_mirror_settings(void);

#endif
