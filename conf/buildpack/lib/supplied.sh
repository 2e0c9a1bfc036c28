# Sourced before the application starts: the programs and libraries of all buildpacks, the last one's first.
for folder in "$DEPS_DIR"/*/; do
  [ ! -d "${folder}bin" ] || export PATH="${folder}bin:$PATH"
  [ ! -d "${folder}lib" ] || export LD_LIBRARY_PATH="${folder}lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
done
unset folder
