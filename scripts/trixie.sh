# Sourced: packages of the next Debian release, from the mirror that this machine has, and only where one is asked for by
# its release: `apt-get install PACKAGE$RELEASE`. RELEASE is empty where the machine has that release itself.
RELEASE=
if grep -q '^VERSION_CODENAME=bookworm' /etc/os-release; then
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >/etc/apt/sources.list.d/trixie.list
  printf 'Package: *\nPin: release n=trixie\nPin-Priority: 100\n' >/etc/apt/preferences.d/trixie
  RELEASE=/trixie
fi
apt-get update -qq
