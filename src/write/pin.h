/*
 * pin.h
 *		Settings under which values are written and read as text.
 */
#ifndef PS_WRITE_PIN_H
#define PS_WRITE_PIN_H

/*
 * ps_pin_settings
 *		Pins them until AtEOXact_GUC(true, result), or until the (sub)transaction
 *		fails.
 */
extern int	ps_pin_settings(void);

#endif
