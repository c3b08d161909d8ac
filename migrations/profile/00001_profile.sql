-- +goose Up

-- A user's profile as it is. The version counts its changes, from 1; what was before is in the topic.
CREATE TABLE profiles (
    user_id    text COLLATE "C" PRIMARY KEY,
    version    bigint NOT NULL CHECK (version > 0),
    name       text NOT NULL,
    email      text NOT NULL, -- empty: none
    bio        text NOT NULL, -- empty: none
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
DROP TABLE profiles;
