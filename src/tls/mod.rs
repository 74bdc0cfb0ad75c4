//! Certificates: read, checked, chosen by SNI, and swapped while connections are open; towards clients and towards pods.
