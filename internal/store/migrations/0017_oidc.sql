-- People who sign in at an identity provider. The pair of issuer and subject is the person, a name is only a label.
CREATE TABLE identities (
  issuer TEXT NOT NULL,
  subject TEXT NOT NULL,
  username TEXT NOT NULL UNIQUE,
  claimed BIGINT NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (issuer, subject)
);
